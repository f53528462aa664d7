import CLinux
import Glibc

/// A system call that failed.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call, or what it was for.
    public var call: String
    /// The error number.
    public var code: Int32

    /// A failure with the given error number.
    public init(_ call: String, code: Int32) {
        self.call = call
        self.code = code
    }

    /// The call and the system's text for the number.
    public var description: String { "\(call): \(String(cString: strerror(code)))" }

    /// The result of a shim call, which is negative on failure.
    static func check(_ call: String, _ result: Int32) throws(SystemError) -> Int32 {
        guard result >= 0 else { throw SystemError(call, code: -result) }
        return result
    }
}

/// The owner of a descriptor, which is closed when the owner goes away.
public struct FileDescriptor: ~Copyable, Sendable {
    /// The number, for calls; it must not outlive the owner.
    public let raw: Int32

    /// Takes over an open descriptor.
    public init(owning raw: Int32) {
        precondition(raw >= 0, "not a descriptor")
        self.raw = raw
    }

    /// Gives the number away without closing it.
    public consuming func release() -> Int32 {
        let number = raw
        discard self
        return number
    }

    /// A second, independent descriptor of the same file.
    public borrowing func duplicate() throws(SystemError) -> FileDescriptor {
        let copy = fcntl(raw, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { throw SystemError("dup", code: errno) }
        return FileDescriptor(owning: copy)
    }

    deinit { close(raw) }
}

/// A counter that wakes a thread waiting in poll.
public final class WakeUp: Sendable {
    let descriptor: FileDescriptor

    /// A counter at rest.
    public init() throws(SystemError) {
        descriptor = FileDescriptor(owning: try SystemError.check("eventfd", clinux_eventfd()))
    }

    /// For poll.
    package var raw: Int32 { descriptor.raw }

    /// Wakes the threads that wait, now and until ``clear()``.
    public func signal() {
        var one: UInt64 = 1
        _ = write(descriptor.raw, &one, 8)
    }

    /// Puts the counter to rest.
    public func clear() {
        var count: UInt64 = 0
        _ = read(descriptor.raw, &count, 8)
    }

    /// Waits for a signal; false when the time was over first. Nil waits for ever.
    public func wait(milliseconds: Int32?) -> Bool {
        var set = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        while true {
            let ready = poll(&set, 1, milliseconds ?? -1)
            if ready < 0, errno == EINTR { continue }
            return ready > 0
        }
    }
}

/// Time that only goes forward.
public enum MonotonicClock {
    /// Nanoseconds since some fixed moment.
    public static var nanoseconds: UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
    }
}
