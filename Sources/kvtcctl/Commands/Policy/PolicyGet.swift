import ArgumentParser
import KVTCProtocol

struct PolicyGet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get",
        abstract: "Show the policy of a session.",
        discussion: """
            EXAMPLES
              kvtcctl policy get 3
              kvtcctl policy get 3 --json | jq .window
            """)

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: "The session's number, as 'kvtcctl sessions' shows it.", transform: Parsed.session)
    var session: UInt32

    @Flag(help: "Print the policy as a JSON object.")
    var json = false

    func run() throws {
        let reply = try connection.withClient { try $0.call(GetPolicyRequest(session: session)) }
        let document = PolicyDocument(session: session, reply: reply)
        Terminal.show(json ? [try jsonLine(document)] : document.lines)
    }
}
