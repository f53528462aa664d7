import Glibc
import KVTCProtocol
import Logging

/// Writes log lines as `key=value` pairs: with a time for people, with a syslog level for a journal.
public struct KeyValueLog: LogHandler {
    /// Pairs that go with every line.
    public var metadata: Logger.Metadata = [:]
    /// The least severe level shown.
    public var logLevel: Logger.Level
    private let writer: LogWriter

    /// A handler that shows messages of the level and above.
    public init(level: Logger.Level, writer: LogWriter = .standardError) {
        logLevel = level
        self.writer = writer
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
        let pairs = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        writer.write(KeyValueLog.line(event.level, message, pairs.map { ($0.key, "\($0.value)") }, writer.isJournal))
    }

    static func line(
        _ level: Logger.Level, _ message: String, _ pairs: [(String, String)], _ isJournal: Bool
    ) -> String {
        var line = isJournal ? "<\(priority(level))>" : "time=\(timestamp()) "
        line += "level=\(level) msg=\(quoted(message))"
        for (key, value) in pairs { line += " \(key)=\(quoted(value))" }
        guard line.utf8.count >= LogWriter.lineBytes else { return line + "\n" }
        return String(decoding: line.utf8.prefix(LogWriter.lineBytes - 4), as: UTF8.self) + "…\n"
    }

    private static func priority(_ level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }

    private static func timestamp() -> String {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var parts = tm()
        gmtime_r(&now.tv_sec, &parts)
        var buffer = [CChar](repeating: 0, count: 32)
        strftime(&buffer, 32, "%Y-%m-%dT%H:%M:%S", &parts)
        let milliseconds = String(1000 + now.tv_nsec / 1_000_000).dropFirst()
        return buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) } + ".\(milliseconds)Z"
    }

    /// Text from outside must not forge lines or pairs: anything but plain characters is quoted and escaped.
    package static func quoted(_ text: String) -> String {
        let isPlain = text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x22 && $0 != 0x3D && $0 != 0x5C }
        if isPlain, !text.isEmpty { return text }
        return "\"" + text.escapedForDisplay.replacing("\"", with: "\\\"") + "\""
    }
}
