import ArgumentParser
import KVTCClient
import KVTCProtocol

struct SharedCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shared",
        abstract: "Look after the servers where the machines of a fleet share pages.",
        discussion: """
            The daemon asks them, as its configuration says ([shared]). What it has found and written there since its start is in \
            'kvtcctl status'. For administrators.

            EXAMPLES
              kvtcctl shared ping          does each server answer, and how quickly
              kvtcctl shared usage         what the fleet keeps there, and the room left
              kvtcctl shared drop --all    clear the fleet's pages and profiles there
            """,
        subcommands: [
            SharedPing.self,
            SharedUsage.self,
            SharedDrop.self,
        ])
}

extension ConnectionOptions {
    /// Has the daemon ask the servers.
    func askServers<Report: Decodable>(_ request: SharedRequest, as _: Report.Type = Report.self) throws -> Report {
        try withClient(explaining: ConnectionOptions.explainShared) { try $0.call(request).decoded() }
    }

    static func explainShared(_ error: ClientError) -> String? {
        guard case .refused(let reason) = error else { return nil }
        switch reason.code {
        case .unknownOpcode:
            return "this daemon is of a release that shares nothing: upgrade it, then systemctl restart kvtcd"
        case .invalidField where reason.field == "shared":
            return "\(reason.message)\n"
                + "name the servers and the fleet's secret there ('man kvtcd.toml', [shared]), then systemctl restart kvtcd"
        case .ioError where reason.field == "shared":
            return "\(reason.message)\n'kvtcctl shared ping' shows which one; then again"
        default: return nil
        }
    }
}

struct SharedPing: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ping",
        abstract: "Measure the way from the daemon to each server and back.",
        discussion: """
            Of a cluster its masters. Exit status 1 where one does not answer; its pages are misses meanwhile, and nothing else \
            suffers.

            EXAMPLES
              kvtcctl shared ping
              kvtcctl shared ping --json | jq '.servers[] | select(.fault)'
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(help: "Print {\"servers\": [{\"address\", \"us\", \"fault\"}]}.")
    var json = false

    func run() throws {
        let report: SharedServers.Ping = try connection.askServers(SharedRequest(action: .ping))
        if json {
            print(try jsonLine(report))
        } else {
            var table = TextTable([("SERVER", .left), ("ANSWERS IN", .left)])
            for server in report.servers {
                let answer = server.us.map(Text.microseconds) ?? "no answer: \(server.fault ?? "unknown")"
                table.add([server.address.escapedForDisplay, answer])
            }
            Terminal.show(table.lines)
        }
        if report.servers.contains(where: { $0.us == nil }) {
            if !json { complain("'kvtcctl status' has each server's own words; 'kvtcctl doctor' says what to do") }
            throw ExitCode(1)
        }
    }
}
