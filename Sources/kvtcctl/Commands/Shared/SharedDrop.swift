import ArgumentParser
import KVTCClient
import KVTCCommandLine
import KVTCProtocol

struct SharedDrop: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drop",
        abstract: "Remove the pages and profiles that the fleet keeps on its servers.",
        discussion: """
            Of all tenants and machines: names there tell nothing of either. What machines have in RAM and on disk stays, and they go on \
            writing; 'kvtcctl drop' forgets single pages everywhere. Progress is shown on a terminal. Stopped or failed half way, \
            it is begun again by the same command.

            EXAMPLES
              kvtcctl shared drop --all
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(help: "All of them. Nothing else can be asked for; leaving it out must not mean that.")
    var all = false
    @Flag(help: "Print {\"removed\"}.")
    var json = false

    func validate() throws {
        guard all else { throw ValidationError("This removes what all machines of the fleet keep there: say --all.") }
    }

    func run() throws {
        var removed: UInt64 = 0
        try connection.withClient(explaining: ConnectionOptions.explainShared) { client in
            var place = ""
            repeat {
                let request = SharedRequest(action: .drop, place: place)
                let step: SharedServers.Drop = try client.call(request).decoded()
                removed += step.removed
                place = step.next ?? ""
                if Terminal.canRedraw { standardError("\r\u{1B}[Kremoved \(Text.count(removed, "value"))") }
            } while !place.isEmpty
            if Terminal.canRedraw { standardError("\r\u{1B}[K") }
        }
        print(json ? try jsonLine(["removed": removed]) : "removed \(Text.count(removed, "value"))")
    }
}
