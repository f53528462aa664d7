import ArgumentParser
import KVTCCommandLine

@main
struct Kvtcctl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kvtcctl",
        abstract: "Show and steer kvtcd, the KV-cache offload daemon.",
        discussion: """
            EXAMPLES
              kvtcctl status                       how full, how fast, who is there
              kvtcctl top                          the same, live
              kvtcctl flush                        make all pages durable
              kvtcctl drain                        take no more pages, write what there is
              kvtcctl verify                       read and check all pages
              kvtcctl doctor                       what is wrong, and how to mend it
              kvtcctl explain 3                    where the pages of session 3 are, and why
              kvtcctl policy set 3 --window 256    protect the last 256 tokens of session 3
              kvtcctl profile load model.kvtc.safetensors
              kvtcctl shared usage                 what a fleet keeps on its servers
              kvtcctl monitor                      Prometheus metrics, health checks and a status page
              kvtcctl plan t.jsonl --token-bytes 128KiB  what more memory would save

            EXIT STATUS
              0   done
              1   the daemon refused, or something failed
              64  wrong usage
              69  no daemon answers on the socket
              75  the daemon is busy or restarting; try again
            """,
        version: "kvtcctl \(release)",
        subcommands: [
            StatusCommand.self,
            FlushCommand.self,
            DrainCommand.self,
            VerifyCommand.self,
            SessionsCommand.self,
            PolicyCommand.self,
            DropCommand.self,
            ProfileCommand.self,
            CalibrateCommand.self,
            BenchCommand.self,
            PlanCommand.self,
            PingCommand.self,
            SharedCommand.self,
            DoctorCommand.self,
            ExplainCommand.self,
            TopCommand.self,
            MonitorCommand.self,
        ])

    /// The release of this program.
    static let release = "0.1.0"

    static func main() { runProgram(showing: Terminal.shown) }
}
