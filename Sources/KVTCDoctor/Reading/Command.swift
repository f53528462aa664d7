import Glibc

/// Another program, run for what it prints.
struct Command {
    /// What a program said before it ended.
    struct Result {
        var status: Int32
        var output: String
    }

    /// Runs a program found in PATH and reads its standard output. Nil where it cannot be run, or has not ended in time: then it
    /// is ended.
    static func run(_ arguments: [String], environment: [String: String]? = nil, seconds: Int = 10) -> Result? {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(ends[0]) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)
        var process: pid_t = 0
        let texts = arguments.map { strdup($0) } + [nil]
        let variables = (environment ?? [:]).map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for text in texts + variables { free(text) } }
        let code =
            environment == nil
            ? posix_spawnp(&process, arguments[0], &actions, nil, texts, environ)
            : posix_spawnp(&process, arguments[0], &actions, nil, texts, variables)
        close(ends[1])
        guard code == 0 else { return nil }
        let output = read(ends[0], seconds: seconds)
        if output == nil { kill(process, SIGKILL) }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        guard let output, status & 0x7F == 0 else { return nil }
        return Result(status: status >> 8 & 0xFF, output: output)
    }

    /// All that comes until the other end is closed; nil when that takes too long, or is more than such programs have to say.
    private static func read(_ descriptor: Int32, seconds: Int) -> String? {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let end = time(nil) + seconds
        while bytes.count < 8 << 20 {
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let left = end - time(nil)
            guard left > 0 else { return nil }
            let ready = poll(&waiting, 1, Int32(left * 1000))
            if ready < 0, errno == EINTR { continue }
            guard ready > 0 else { return nil }
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes += buffer[..<count]
        }
        return nil
    }
}
