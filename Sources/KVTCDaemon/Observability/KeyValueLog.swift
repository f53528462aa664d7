import KVTCProtocol
import Logging
import Synchronization

/// Logs what happens in the daemon, see ``LogEntry``.
public struct KeyValueLog: LogHandler {
    /// Pairs that go with every line.
    public var metadata: Logger.Metadata = [:]
    /// The least severe level shown, of all copies alike: a reload reaches every part of the daemon.
    public var logLevel: Logger.Level {
        get { Logger.Level.allCases[threshold.index.load(ordering: .relaxed)] }
        set { threshold.index.store(Logger.Level.allCases.firstIndex(of: newValue) ?? 0, ordering: .relaxed) }
    }
    private let threshold = Threshold()
    private let writer: LogWriter

    private final class Threshold: Sendable { let index = Atomic(0) }

    /// A handler that shows messages of the level and above.
    public init(level: Logger.Level, writer: LogWriter = .standardError) {
        self.writer = writer
        logLevel = level
    }

    /// One of the pairs that go with every line.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes one line, unless too many of the message came lately.
    public func log(event: LogEvent) {
        let message = "\(event.message)"
        guard writer.admits(message, level: event.level) else { return }
        let pairs = metadata.merging(event.metadata ?? [:]) { $1 }
        writer.write(LogEntry(event.level, message, pairs, isJournal: writer.isJournal))
    }

    /// Text from outside must not forge lines or pairs: anything but plain characters is quoted and escaped.
    package static func quoted(_ text: String) -> String {
        let isPlain = text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x22 && $0 != 0x3D && $0 != 0x5C }
        if isPlain, !text.isEmpty { return text }
        return "\"" + text.escapedForDisplay.replacing("\"", with: "\\\"") + "\""
    }
}
