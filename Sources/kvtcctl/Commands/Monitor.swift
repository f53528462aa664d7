import ArgumentParser
import Glibc
import KVTCClient
import KVTCCommandLine
import KVTCMonitor
import KVTCProtocol

struct MonitorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "monitor",
        abstract: "Serve Prometheus metrics, health checks and a status page.",
        discussion: """
            Read only, over HTTP, to this machine alone:
              /             a page that shows tiers, hits, latencies and sessions live
              /metrics      for Prometheus
              /healthz      200 while the daemon answers, else 503 and why
              /readyz       200 while it is ready; 503 while degraded or stopping
              /status.json  what 'kvtcctl status --json' prints
            It sees what its user sees: run it as an administrator of the daemon (root, the daemon's user, or who \
            kvtcd.toml names), as kvtcd-monitor.service does. Every user of the machine can read what 127.0.0.1 \
            serves, so it tells no names there unless asked to.

            EXAMPLES
              kvtcctl monitor                                       then open http://127.0.0.1:9464/
              kvtcctl monitor --listen unix:/run/kvtcd-monitor/http.sock --names
              systemctl enable --now kvtcd-monitor
              curl -s http://127.0.0.1:9464/metrics
            """)

    @OptionGroup var connection: ConnectionOptions

    @Option(
        parsing: .unconditional, help: ArgumentHelp("127.0.0.1:PORT or unix:/PATH.", valueName: "address"))
    var listen = "127.0.0.1:9464"

    @Flag(help: "Show names of sessions and numbers of tenants as well.")
    var names = false

    private var address: MonitorAddress {
        get throws {
            do throws(MonitorError) { return try MonitorAddress(listen) } catch {
                throw ValidationError("--listen: \(error)")
            }
        }
    }

    func validate() throws { _ = try address }

    func run() throws {
        let address = try address
        let (socket, timeout) = (connection.socket, min(connection.timeout, 10))
        let server: MonitorServer
        do throws(MonitorError) {
            server = try MonitorServer(at: address, names: names) { MonitorCommand.ask(socket, timeout) }
        } catch {
            complain("\(error)")
            throw ExitCode(1)
        }
        standardError("kvtcctl: serving at \(server.port == 0 ? "\(address)" : "http://127.0.0.1:\(server.port)/")\n")
        withExtendedLifetime(server) { while true { pause() } }
    }

    /// A connection of its own every time: a monitor outlives the daemon's restarts.
    private static func ask(_ socket: String?, _ timeout: Int) -> Result<StatusReport, MonitorError> {
        do {
            let client = try Client(socketPath: socket, name: "kvtcctl", timeoutSeconds: timeout)
            return .success(try client.call(StatusRequest()).decoded())
        } catch {
            return .failure(MonitorError("\(error)"))
        }
    }
}
