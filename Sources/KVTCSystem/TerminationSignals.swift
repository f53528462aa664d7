import CLinux
import Glibc

/// SIGTERM and SIGINT as something to wait for instead of something that interrupts.
public struct TerminationSignals: Sendable {
    /// Blocks both for this thread and all it starts from now on; to be called before any other thread exists. Broken
    /// pipes become errors of the write that met them.
    public init() {
        signal(SIGPIPE, SIG_IGN)
        clinux_block_termination()
    }

    /// Waits for one of them; the signal's number, or nil when the time was over first.
    public func wait(milliseconds: Int) -> Int32? {
        let number = clinux_wait_termination(Int64(milliseconds))
        return number > 0 ? number : nil
    }
}
