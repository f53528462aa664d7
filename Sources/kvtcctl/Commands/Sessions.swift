import ArgumentParser
import KVTCClient
import KVTCProtocol

struct SessionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sessions",
        abstract: "List the live sessions.",
        discussion: """
            A session ends with the connection that opened it; its pages stay. Root sees the sessions of every user, \
            others their own.

            EXAMPLES
              kvtcctl sessions
              kvtcctl sessions --watch 2
              kvtcctl sessions --json | jq '.[].id'
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(help: "Print the sessions of the daemon's status as a JSON array.")
    var json = false

    @OptionGroup var watch: WatchOptions

    func run() throws { try watch.run(json: json, report) }

    private func report() throws -> String {
        let document = try connection.withClient { try $0.call(StatusRequest()).json }
        if json { return try jsonLine(try JSONValue(text: document)["sessions"] ?? .array([])) }
        let sessions = try decodeStatus(document).sessions
        return (sessions.isEmpty ? ["no sessions"] : StatusView.sessions(sessions)).joined(separator: "\n")
    }
}
