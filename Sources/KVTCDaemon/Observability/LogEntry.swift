import Glibc
import KVTCProtocol
import KVTCStore
import KVTCSystem
import Logging

/// What is logged once: a line of `key=value` pairs, and for a journal its fields.
struct LogEntry: Sendable {
    /// With the time, as people want it; for a journal that reads lines with a level, as it adds the time.
    let line: String
    /// All fields of an entry in the journal (systemd.journal-fields(7)); none where no journal reads.
    let fields: [String]

    /// - Parameter metadata: pairs by their keys, told in the order of those.
    init(_ level: Logger.Level, _ message: String, _ metadata: Logger.Metadata, isJournal: Bool) {
        let sorted = metadata.sorted { $0.key < $1.key }
        let pairs = sorted.reduce(into: "") { $0 += " \($1.key)=\(KeyValueLog.quoted("\($1.value)"))" }
        let priority = LogEntry.priority(level)
        let start = isJournal ? "<\(priority)>" : "time=\(LogEntry.timestamp()) "
        line = LogEntry.cut("\(start)level=\(level) msg=\(KeyValueLog.quoted(message))\(pairs)") + "\n"
        guard isJournal else {
            fields = []
            return
        }
        let id = LogCatalog.ids[message].map { ["MESSAGE_ID=\($0)"] } ?? []
        fields =
            ["MESSAGE=\(LogEntry.cut(message + pairs))", "PRIORITY=\(priority)", "SYSLOG_IDENTIFIER=kvtcd"] + id
            + sorted.flatMap { LogEntry.fields(of: $0.key, $0.value) }
    }

    /// What it takes while it waits.
    var byteCount: Int { fields.reduce(line.utf8.count) { $0 + $1.utf8.count } }

    private static func cut(_ line: String) -> String {
        guard line.utf8.count >= LogWriter.lineBytes else { return line }
        return String(decoding: line.utf8.prefix(LogWriter.lineBytes - 4), as: UTF8.self) + "…"
    }

    private static func fields(of key: String, _ value: Logger.MetadataValue) -> [String] {
        let name =
            switch key {
            case "key": "PAGE"
            case "id": "PROFILE"
            default: String(key.uppercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
            }
        let text = "\(value)"
        let field = "KVTCD_\(name)=\(cut(text))"
        guard case .stringConvertible(let error) = value else { return [field] }
        switch error {
        case let error as WireError: return [field, "KVTCD_ERROR_CODE=\(error.code)"]
        case let error as SystemError: return [field, "ERRNO=\(error.code)"]
        case StoreError.io(let error): return [field, "ERRNO=\(error.code)"]
        default: return [field]
        }
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
}
