import ArgumentParser
import KVTCProtocol

struct ProfileList: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the daemon's profiles.",
        discussion: """
            EXAMPLES
              kvtcctl profile list
              kvtcctl profile list --json
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(help: "Print the daemon's JSON document, one line.")
    var json = false

    func run() throws {
        let document = try connection.withClient { try $0.call(ProfileRequest(action: .list)).json }
        if json {
            print(document.visibleJSON)
            return
        }
        let profiles = try JSONValue(text: document).items ?? []
        guard !profiles.isEmpty else {
            let advice = "no profiles; make one with 'kvtcctl calibrate' and hand it over with 'kvtcctl profile load'"
            Terminal.show(Terminal.wrapped(advice))
            return
        }
        var table = TextTable([("PROFILE", .left), ("MODEL", .left), ("FILE", .left)])
        for profile in profiles {
            table.add(["id", "model", "file"].map { profile[$0]?.string?.escapedForDisplay ?? "–" })
        }
        Terminal.show(table.lines)
    }
}
