import Glibc

/// Samples are mapped, since they may be larger than memory; one that is cut meanwhile raises SIGBUS.
enum CutFile {
    /// From now on says what has happened where a signal would end the program without a word.
    static func explain() {
        signal(SIGBUS) { _ in
            // Nothing but calls that a signal handler may make.
            let text: StaticString = "kvtcctl: a file became shorter while it was read; nothing was made of it\n"
            _ = write(STDERR_FILENO, text.utf8Start, text.utf8CodeUnitCount)
            _exit(1)
        }
    }
}
