import ArgumentParser
import KVTCProtocol

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Read and check every page, in RAM and on disk.",
        discussion: """
            The daemon goes on serving. A copy of a page that is not what was pushed is taken out; a page that has \
            another, good copy stays. For administrators. Without a daemon: kvtcd --fsck DIRECTORY.

            EXIT STATUS
              0  every copy is good
              1  some were not, or could not be read

            EXAMPLES
              kvtcctl verify
              kvtcctl verify --json
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(help: "Print {\"checked\", \"bytes\", \"corrupt\", \"unreadable\"}.")
    var json = false

    func run() throws {
        var bar = ProgressBar()
        let found = try connection.withClient { client in
            try client.call(VerifyRequest()) { part in
                bar.show("verifying", Double(part.checked) / Double(max(part.total, 1)))
            }
        }
        bar.finish()
        if json {
            print(
                try jsonLine([
                    "checked": found.checked, "bytes": found.bytes, "corrupt": found.corrupt,
                    "unreadable": found.unreadable,
                ]))
        } else {
            print(
                "\(Text.count(found.checked, "copy", "copies")) of pages, \(Text.bytes(found.bytes)): "
                    + "\(Text.count(found.corrupt)) corrupt and taken out, \(Text.count(found.unreadable)) unreadable")
        }
        if found.corrupt + found.unreadable > 0 { throw ExitCode(1) }
    }
}
