import CLinux
import Glibc

/// Signals as something to wait for instead of something that interrupts.
public struct Signals: Sendable {
    /// What the sender wants.
    public enum Wish: Hashable, Sendable {
        /// An orderly end: TERM, INT, QUIT, PWR (the power is going) or XCPU (the kernel is about to kill).
        case stop
        /// Anew what can be read anew: HUP.
        case reload
    }

    /// To be called before any thread is started: blocks what ``wait(until:)`` waits for, and ignores what ends a process by
    /// default and means nothing here (PIPE, ALRM, USR1, …). Broken pipes become errors of the write that met them.
    public init() { clinux_take_signals() }

    /// Waits for one; nil when the time (on ``MonotonicClock``) was over first.
    public func wait(until deadline: UInt64) -> Wish? {
        while true {
            let now = MonotonicClock.nanoseconds
            let left = deadline > now ? (deadline - now + 999_999) / 1_000_000 : 0
            let number = clinux_wait_signal(Int64(clamping: left))
            if number == SIGHUP { return .reload }
            if number > 0 { return .stop }
            if number == -EAGAIN { return nil }
        }
    }
}

/// Standard input, output and error.
public enum StandardStreams {
    /// Puts /dev/null where the parent left none: else the next file opened would have its number, and the log would be
    /// written into that.
    public static func fill() {
        for number in Int32(0)...2 where fcntl(number, F_GETFD) < 0 {
            let null = open("/dev/null", O_RDWR)
            // The lowest free number is the one that is missing.
            if null >= 0, null != number { close(null) }
        }
    }
}
