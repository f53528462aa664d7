import ArgumentParser
import Glibc
import KVTCCommandLine

/// Commands that show something can show it again and again.
struct WatchOptions: ParsableArguments {
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Repeat every so many seconds until interrupted.", valueName: "seconds"),
        transform: Parsed.seconds(0.1...86400))
    var watch: Double?

    /// Prints a report, once or as often as was asked for: over itself where that can be, as JSON one document a line. A connection of
    /// its own every time: the watch goes on when the daemon restarts.
    func run(json: Bool, _ report: () throws -> String) throws {
        guard let watch else {
            print(try report())
            return
        }
        while true {
            do {
                let text = try report()
                print(Terminal.isStyled && !json ? "\u{1B}[H\u{1B}[2J\(text)" : text)
                StandardOutput.flush()
            } catch let code as ExitCode where code != ExitCode(1) {
                // What went wrong is on standard error.
                if !json { print(Terminal.shown("waiting for the daemon…")) }
                StandardOutput.flush()
            }
            usleep(UInt32(watch * 1_000_000))
        }
    }
}
