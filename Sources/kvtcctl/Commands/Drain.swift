import ArgumentParser
import KVTCClient
import KVTCCommandLine
import KVTCProtocol

struct DrainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Take no more sessions and pages, and write what there is.",
        discussion: """
            Before a machine or a disk is taken away. From then on new sessions and pushes are refused; sessions that are \
            open go on, and pages are given back. What waits is coded and written, with progress on the terminal, as \
            'kvtcctl flush' does; a stop then has little left to do. --end has the daemon take pages again, and so has a \
            restart. For administrators.

            EXAMPLES
              kvtcctl drain && systemctl stop kvtcd.socket kvtcd
              kvtcctl drain --end
            """)

    @OptionGroup var connection: ConnectionOptions

    @Flag(help: "Take sessions and pages again.")
    var end = false
    @Flag(help: "Print {\"draining\", \"pages\", \"bytes\"}: pages and bytes written, null where none were to be.")
    var json = false

    private struct Report: Encodable {
        var draining: Bool
        @OrNull var pages: UInt64?
        @OrNull var bytes: UInt64?
    }

    func run() throws {
        let written = try connection.withClient { client -> FlushReply? in
            _ = try client.call(DrainRequest(begin: !end))
            return end ? nil : try write(client)
        }
        if json { return print(try jsonLine(Report(draining: !end, pages: written?.pages, bytes: written?.bytes))) }
        if end { return print("sessions and pages are taken again") }
        let done =
            written.map { "flushed \(Text.count($0.pages, "page")), \(Text.bytes($0.bytes)) written" }
            ?? "there is no disk tier: pages are in RAM only"
        print("draining: no sessions and pages are taken; \(done)")
    }

    private func write(_ client: Client) throws -> FlushReply? {
        do { return try connection.flush(nil, client) } catch ClientError.refused(let error) where error.field == "disk"
        {
            return nil
        }
    }
}
