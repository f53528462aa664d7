import CLinux
import CSystemd
import Glibc

/// Tells the service manager how the daemon is. Without one, nothing happens. A manager that does not read its messages holds
/// no caller up: what finds no room in its queue is left out.
public struct Notifier: Sendable {
    /// How long the service manager waits for a sign of life, in microseconds; nil when it does not.
    public let watchdogMicroseconds: UInt64?
    private let address: String?

    /// Finds out what the service manager expects.
    public init() {
        var interval: UInt64 = 0
        watchdogMicroseconds = sd_watchdog_enabled(0, &interval) > 0 ? interval : nil
        address = getenv("NOTIFY_SOCKET").map { String(cString: $0) }
    }

    /// Whether there is a service manager to talk to.
    public var isSupervised: Bool { address != nil }

    /// The daemon serves. False when the service manager has not got that and is to be told again.
    public func ready(status: String) -> Bool { send("READY=1\nSTATUS=\(Notifier.line(status))", patience: 1000) }

    /// The daemon reads its configuration anew until it is ``ready(status:)`` again.
    public func reloading() {
        send("RELOADING=1\nMONOTONIC_USEC=\(MonotonicClock.nanoseconds / 1000)", patience: 100)
    }

    /// The daemon is on its way out.
    public func stopping(status: String) { send("STOPPING=1\nSTATUS=\(Notifier.line(status))", patience: 1000) }

    /// One line about what the daemon does now.
    public func status(_ text: String) { send("STATUS=\(Notifier.line(text))") }

    /// A sign of life.
    public func watchdog() { send("WATCHDOG=1") }

    /// Asks for so much time from now on to stop.
    public func extendTimeout(seconds: Int) { send("EXTEND_TIMEOUT_USEC=\(seconds * 1_000_000)") }

    /// Has the service manager keep a descriptor across restarts and crashes; it is in its queue when this returns, which
    /// outlives this process, unless the queue is full. `lost` is called, elsewhere, when it has not got it in a while.
    public func store(_ descriptor: Int32, name: String, lost: @escaping @Sendable () -> Void) {
        guard let address else { return lost() }
        let message = "FDSTORE=1\nFDNAME=\(Notifier.line(name))"
        let isQueued = send(message, descriptor: descriptor)
        let own = isQueued ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        aside {
            let isSent = isQueued || send(message, descriptor: own, patience: Notifier.patience)
            if own >= 0 { close(own) }
            if !isSent || clinux_notify_barrier(address, Notifier.patience) != 0 { lost() }
        }
    }

    /// Has the service manager let go of the descriptors kept under a name.
    public func removeStored(name: String) {
        aside { send("FDSTOREREMOVE=1\nFDNAME=\(Notifier.line(name))", patience: Notifier.patience) }
    }

    /// Milliseconds for a service manager to read what matters.
    private static let patience: Int32 = 5000

    /// Waits for the service manager where no request waits for this.
    private func aside(_ body: @escaping @Sendable () -> Void) {
        do throws(SystemError) { try Thread.start(name: "kvtc-notify", body).detach() } catch { body() }
    }

    /// Waits so many milliseconds for room. True also without a service manager, and for one that is gone.
    @discardableResult
    private func send(_ text: String, descriptor: Int32 = -1, patience: Int32 = 0) -> Bool {
        guard let address else { return true }
        return clinux_notify(address, text, descriptor, patience) != -EAGAIN
    }

    /// A file name must not be able to forge further assignments.
    static func line(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }
}

/// What the service manager handed over at the start.
public struct InheritedDescriptors: Sendable {
    /// Listening Unix stream sockets.
    public var listeners: [UnixListener] = []
    /// Every other descriptor, by name: what ``Notifier/store(_:name:lost:)`` kept. The caller owns them.
    public var stored: [(name: String, descriptor: Int32)] = []

    /// Takes all of them, out of the environment as well, so that children don't see them.
    public static func take() -> InheritedDescriptors {
        var names: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
        let count = sd_listen_fds_with_names(1, &names)
        var result = InheritedDescriptors()
        for index in 0..<max(0, Int(count)) {
            let raw = Int32(SD_LISTEN_FDS_START) + Int32(index)
            let name = names?[index]
            if sd_is_socket_unix(raw, Int32(SOCK_STREAM.rawValue), 1, nil, 0) > 0 {
                result.listeners.append(UnixListener(owning: FileDescriptor(owning: raw)))
            } else {
                result.stored.append((name.map { String(cString: $0) } ?? "", raw))
            }
            free(name)
        }
        free(names)
        return result
    }
}
