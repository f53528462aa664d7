import ArgumentParser
import KVTCProtocol

struct FlushCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flush",
        abstract: "Make pages durable.",
        discussion: """
            Encodes what waits, writes it to disk and syncs. When the command returns, everything that was acknowledged \
            before it started survives a power loss.

            EXAMPLES
              kvtcctl flush
              kvtcctl flush --session 3
            """)

    @OptionGroup var connection: ConnectionOptions

    @Option(help: ArgumentHelp("Only the pages of this session.", valueName: "id"))
    var session: UInt32?

    @Flag(help: "Print {\"pages\", \"bytes\"}.")
    var json = false

    func run() throws {
        let reply = try connection.withClient { try $0.call(FlushRequest(session: session ?? Wire.none)) }
        if json {
            print("{\"pages\":\(reply.pages),\"bytes\":\(reply.bytes)}")
        } else {
            print("flushed \(Text.count(reply.pages)) pages, \(Text.bytes(reply.bytes)) written")
        }
    }
}
