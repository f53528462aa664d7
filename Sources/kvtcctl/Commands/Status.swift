import ArgumentParser
import Glibc
import KVTCClient
import KVTCCommandLine
import KVTCProtocol

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show tiers, pages, latencies and sessions.",
        discussion: """
            "Ratio" is raw bytes over stored bytes of the pages that are there now, protected tokens and headers \
            included. Latencies are the daemon's own, without the way through the socket.

            EXAMPLES
              kvtcctl status
              kvtcctl status --watch 2
              kvtcctl status --json | jq .tiers.ram.used
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(help: "Print the daemon's JSON document, one line.")
    var json = false

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Repeat every so many seconds until interrupted.", valueName: "seconds"),
        transform: Parsed.seconds(0.1...86400))
    var watch: Double?

    func run() throws {
        guard let watch else {
            print(try report())
            return
        }
        while true {
            // A connection of its own every time: the watch goes on when the daemon restarts.
            let text: String
            do {
                text = try report()
            } catch let code as ExitCode where code != ExitCode(1) {
                text = Terminal.shown("waiting for the daemon…")
            }
            print(Terminal.isStyled && !json ? "\u{1B}[H\u{1B}[2J\(text)" : text)
            StandardOutput.flush()
            usleep(UInt32(watch * 1_000_000))
        }
    }

    private func report() throws -> String {
        let document = try connection.withClient { try $0.call(StatusRequest()).json }
        return json ? document.visibleJSON : StatusView(try decodeStatus(document)).text
    }
}

/// Reads a STATUS document; one that can't be read means that daemon and kvtcctl do not belong together.
func decodeStatus(_ document: String) throws -> StatusReport {
    do {
        return try JSONReply(json: document).decoded()
    } catch {
        complain(
            "the daemon's status can't be read (\(error)): it is of another version than kvtcctl. "
                + "Restart it (systemctl restart kvtcd), or use --json.")
        throw ExitCode(1)
    }
}
