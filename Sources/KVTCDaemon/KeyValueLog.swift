import Glibc
import KVTCProtocol
import Logging

/// Writes log lines as `key=value` pairs to standard error: with a time for people, with a syslog level for a journal.
public struct KeyValueLog: LogHandler {
    /// Pairs that go with every line.
    public var metadata: Logger.Metadata = [:]
    /// The least severe level shown.
    public var logLevel: Logger.Level
    private let isJournal: Bool

    /// A handler that shows messages of the level and above. `isJournal`: systemd reads standard error and adds the time.
    public init(level: Logger.Level, isJournal: Bool) {
        logLevel = level
        self.isJournal = isJournal
    }

    /// One of the pairs that go with every line.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes one line.
    public func log(event: LogEvent) {
        var line = isJournal ? "<\(KeyValueLog.priority(event.level))>" : "time=\(KeyValueLog.timestamp()) "
        line += "level=\(event.level) msg=\(KeyValueLog.quoted("\(event.message)"))"
        let pairs = metadata.merging(event.metadata ?? [:]) { $1 }
        for (key, value) in pairs.sorted(by: { $0.key < $1.key }) {
            line += " \(key)=\(KeyValueLog.quoted("\(value)"))"
        }
        line += "\n"
        // One write a line: lines of different threads do not mix, and what cannot be written is lost.
        _ = line.withCString { write(2, $0, strlen($0)) }
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
