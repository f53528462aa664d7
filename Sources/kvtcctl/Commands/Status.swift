import ArgumentParser
import KVTCClient
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

    @OptionGroup var watch: WatchOptions

    func run() throws { try watch.run(json: json, report) }

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
