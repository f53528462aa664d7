import ArgumentParser
import Glibc
import KVTCClient
import KVTCCommandLine

/// The options of every command that talks to the daemon, and what its failures mean for the exit status.
struct ConnectionOptions: ParsableArguments {
    @Option(
        parsing: .unconditional, help: "The daemon's socket (default: $KVTC_SOCKET, then \(Client.defaultSocket)).",
        completion: .file())
    var socket: String?

    @Option(
        parsing: .unconditional, help: "Seconds to wait for an answer.", transform: Parsed.whole(1...86400))
    var timeout = 60

    /// Bytes of a path that the address of a socket holds.
    private static let longestPath = 107

    func validate() throws {
        guard let socket else { return }
        guard !socket.isEmpty else {
            throw ValidationError("--socket is empty: name the daemon's socket, or leave the option out.")
        }
        guard socket.utf8.count <= ConnectionOptions.longestPath else {
            throw ValidationError(
                "--socket has \(socket.utf8.count) bytes; a socket's address holds \(ConnectionOptions.longestPath).")
        }
    }

    /// Connects, runs the body, and ends the process with a message and the documented status where that fails.
    /// `explaining` may know better words for an error than its own.
    func withClient<R>(
        explaining: (ClientError) -> String? = { _ in nil }, _ body: (Client) throws -> R
    ) throws -> R {
        do {
            return try body(try Client(socketPath: socket, name: "kvtcctl", timeoutSeconds: timeout))
        } catch let error as ClientError {
            complain(explaining(error) ?? "\(error)")
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
    let lines = message.withArgumentsOnOneLine.split(separator: "\n", omittingEmptySubsequences: false)
    standardError("kvtcctl: \(lines.map { Terminal.shown(String($0)) }.joined(separator: "\n"))\n")
}
