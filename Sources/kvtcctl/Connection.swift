import ArgumentParser
import Glibc
import KVTCClient

/// The options of every command that talks to the daemon, and what its failures mean for the exit status.
struct ConnectionOptions: ParsableArguments {
    @Option(help: "The daemon's socket (default: $KVTC_SOCKET, then \(Client.defaultSocket)).")
    var socket: String?

    @Option(help: "Seconds to wait for an answer.")
    var timeout = 60

    func validate() throws {
        guard timeout > 0 else { throw ValidationError("--timeout must be at least 1 second.") }
    }

    /// Connects, runs the body, and ends the process with a message and the documented status where that fails.
    func withClient<R>(_ body: (Client) throws -> R) throws -> R {
        do {
            return try body(try Client(socketPath: socket, name: "kvtcctl", timeoutSeconds: timeout))
        } catch let error as ClientError {
            complain("\(error)")
            throw exitStatus(for: error)
        }
    }
}

/// The exit statuses of sysexits.h that scripts can act on.
func exitStatus(for error: ClientError) -> ExitCode {
    if case .unreachable = error { return ExitCode(EX_UNAVAILABLE) }
    return ExitCode(error.isTransient ? EX_TEMPFAIL : 1)
}

/// Writes a message to standard error, so that standard output holds results only.
func complain(_ message: String) {
    let line = Array("kvtcctl: \(message)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
}
