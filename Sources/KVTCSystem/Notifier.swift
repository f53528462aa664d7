import CLinux
import CSystemd
import Glibc

/// Tells the service manager how the daemon is. Without one, nothing happens.
public struct Notifier: Sendable {
    /// How long the service manager waits for a sign of life, in microseconds; nil when it does not.
    public let watchdogMicroseconds: UInt64?

    /// Finds out what the service manager expects.
    public init() {
        var interval: UInt64 = 0
        watchdogMicroseconds = sd_watchdog_enabled(0, &interval) > 0 ? interval : nil
    }

    /// The daemon serves.
    public func ready(status: String) { sd_notify(0, "READY=1\nSTATUS=\(Notifier.line(status))") }

    /// The daemon is on its way out.
    public func stopping(status: String) { sd_notify(0, "STOPPING=1\nSTATUS=\(Notifier.line(status))") }

    /// One line about what the daemon does now.
    public func status(_ text: String) { sd_notify(0, "STATUS=\(Notifier.line(text))") }

    /// A sign of life.
    public func watchdog() { sd_notify(0, "WATCHDOG=1") }

    /// Asks for more time to stop.
    public func extendTimeout(seconds: Int) { sd_notify(0, "EXTEND_TIMEOUT_USEC=\(seconds * 1_000_000)") }

    /// A file name must not be able to forge further assignments.
    static func line(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }
}

/// Sockets that the service manager opened for the daemon.
public enum ListenSockets {
    /// The listening Unix stream sockets handed over, taken out of the environment so that children don't see them.
    public static func take() -> [UnixListener] {
        let count = sd_listen_fds(1)
        guard count > 0 else { return [] }
        return (0..<count).compactMap { index in
            let raw = Int32(SD_LISTEN_FDS_START) + index
            guard sd_is_socket_unix(raw, Int32(SOCK_STREAM.rawValue), 1, nil, 0) > 0 else { return nil }
            return UnixListener(owning: FileDescriptor(owning: raw))
        }
    }
}

/// How large the machine is.
public enum Machine {
    /// Bytes of main memory.
    public static var memoryBytes: Int { sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) }

    /// Processors this process may run on.
    public static var processors: Int {
        max(1, Int(clinux_processors()))
    }
}
