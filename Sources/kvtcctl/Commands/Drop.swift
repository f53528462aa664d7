import ArgumentParser
import KVTCProtocol

extension PageKey: ExpressibleByArgument {
    /// 64 hexadecimal digits.
    public init?(argument: String) {
        let digits = Array(argument.utf8)
        guard digits.count == 2 * PageKey.byteCount else { return nil }
        let bytes = stride(from: 0, to: digits.count, by: 2).map {
            UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)
        }
        guard !bytes.contains(nil) else { return nil }
        self.init(bytes.compactMap { $0 })
    }
}

struct DropCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drop",
        abstract: "Forget pages, in RAM and on disk.",
        discussion: """
            Keys are deleted by name, whoever uses them, pinned and leased ones, too; --session alone leaves pages that
            another open session uses. Only pages of your own user id can be dropped.
            Keys without --session are looked for under the 64 models (identity, shape, profile, element type) that your
            sessions used last since the daemon started.

            EXAMPLES
              kvtcctl drop --session 3                    pages of the session alone
              kvtcctl drop 6b8f...(64 hexadecimal digits)   single pages
              kvtcctl drop --all                          every page of your user id
            """)

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: ArgumentHelp("Page keys, 64 hexadecimal digits each.", valueName: "key"))
    var keys: [PageKey] = []

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Pages that only this session uses (or those of the keys named).", valueName: "id"),
        transform: Parsed.session)
    var session: UInt32?

    @Flag(help: "Every page of your user id.")
    var all = false

    @Flag(help: "Print {\"dropped\"}.")
    var json = false

    func validate() throws {
        // On the wire no session and no keys means everything; leaving something out must not mean that.
        if all, session != nil || !keys.isEmpty { throw ValidationError("--all goes with neither keys nor --session.") }
        if !all, session == nil, keys.isEmpty { throw ValidationError("Name keys, a --session, or --all.") }
    }

    func run() throws {
        let request = DropRequest(session: session ?? Wire.none, keys: keys)
        let dropped = try connection.withClient { try $0.call(request) }.dropped
        print(json ? try jsonLine(["dropped": dropped]) : "dropped \(Text.count(UInt64(dropped), "page"))")
    }
}
