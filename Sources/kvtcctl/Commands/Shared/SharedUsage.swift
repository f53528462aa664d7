import ArgumentParser
import KVTCProtocol

struct SharedUsage: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usage",
        abstract: "Show what the fleet keeps on each server, and how much room there is.",
        discussion: """
            Values are pages and parts of profiles under this fleet's prefix; USED is all that the server has, of which other users \
            may have a part. Of a server with many names a part is looked at, and the numbers are estimates (~).

            EXAMPLES
              kvtcctl shared usage
              kvtcctl shared usage --json | jq '[.servers[].bytes] | add'
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(
        help:
            "Print {\"servers\": [{\"address\", \"fault\", \"values\", \"bytes\", \"is_estimate\", \"used_bytes\", \"max_bytes\", \"policy\"}]}."
    )
    var json = false

    func run() throws {
        let report: SharedServers.Usage = try connection.askServers(SharedRequest(action: .usage))
        if json {
            print(try jsonLine(report))
        } else {
            show(report.servers)
        }
        if report.servers.contains(where: { $0.fault != nil }) { throw ExitCode(1) }
    }

    private func show(_ servers: [SharedServers.Usage.Server]) {
        var table = TextTable([
            ("SERVER", .left), ("VALUES", .right), ("BYTES", .right), ("USED", .right), ("OF", .right),
            ("WHEN FULL", .left),
        ])
        for server in servers {
            let name = server.address.escapedForDisplay
            guard server.fault == nil else {
                table.add([name, "–", "–", "–", "–", "no answer: \(server.fault ?? "")"])
                continue
            }
            let about = server.isEstimate ? "~" : ""
            table.add([
                name, about + Text.count(server.values), about + Text.bytes(server.bytes), Text.bytes(server.usedBytes),
                server.maxBytes == 0 ? "no limit" : Text.bytes(server.maxBytes), server.policy.escapedForDisplay,
            ])
        }
        Terminal.show(table.lines)
        for advice in Self.advice(servers) { Terminal.show(Terminal.wrapped(advice)) }
    }

    private static func advice(_ servers: [SharedServers.Usage.Server]) -> [String] {
        let here = servers.filter { $0.fault == nil }
        var lines: [String] = []
        if here.contains(where: { $0.maxBytes == 0 }) {
            lines.append(
                "A server without a limit grows until its machine has no memory left: set maxmemory in its configuration."
            )
        }
        if here.contains(where: { $0.policy == "noeviction" }) {
            lines.append(
                "A server that lets nothing go takes no more pages when it is full: set maxmemory-policy allkeys-lru.")
        }
        return lines
    }
}
