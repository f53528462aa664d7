import CLinux
import Glibc
import Synchronization

/// Results that could not be written must not look like success.
public enum StandardOutput {
    private static let end = Mutex((program: "", status: Int32(1)))

    /// What the process ends with when its results cannot be written; 1 where nobody says otherwise.
    public static func fail(with status: Int32) { end.withLock { $0.status = status } }

    /// From now on the end of the process includes that all of its output has been taken.
    static func watchEnd(of program: String) {
        end.withLock { $0.program = program }
        atexit { StandardOutput.flush() }
    }

    /// Writes what is held back; ends the process where that, or a write before, failed. Whoever closes a pipe has seen enough:
    /// nothing is said of that.
    public static func flush() {
        let code = clinux_flush_output()
        guard code != 0 else { return }
        let (program, status) = end.withLock { $0 }
        if code != EPIPE, !isHungUp {
            let reason = code < 0 ? "not everything could be written" : String(cString: strerror(code))
            standardError("\(program): standard output: \(reason)\n")
        }
        _exit(status)
    }

    private static var isHungUp: Bool {
        var stream = pollfd(fd: STDOUT_FILENO, events: 0, revents: 0)
        return poll(&stream, 1, 0) > 0 && stream.revents & Int16(POLLERR | POLLHUP) != 0
    }
}

/// Writes to standard error. Where that fails there is nobody to tell.
public func standardError(_ text: String) {
    let bytes = Array(text.utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
}
