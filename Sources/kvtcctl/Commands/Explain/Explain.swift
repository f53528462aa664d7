import ArgumentParser
import KVTCClient
import KVTCProtocol

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Show where pages are, how they are coded, why, and what leaves before them.",
        discussion: """
            Of a session all pages, those that are alike in one line; of keys each in detail. Asking is no use of a page. A page of \
            another user looks like one that is not there; administrators find those of every user. Exit status 1 where \
            there is no such session, or no page under any of the keys.

            EXAMPLES
              kvtcctl explain 3
              kvtcctl explain 3 --watch 2
              kvtcctl explain 6b8f...(64 hexadecimal digits)
              kvtcctl explain 3 --json | jq '.pages[] | select(.place == "disk").key'
            """)

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: ArgumentHelp("A session's number, or keys of pages.", valueName: "session|key"))
    var targets: [String]

    @Flag(help: "Print {\"session\", \"first\", \"next\", \"pages\"}, one line.")
    var json = false

    @OptionGroup var watch: WatchOptions

    private enum Target {
        case session(UInt32)
        case keys([PageKey])
    }

    private var target: Target {
        get throws {
            // A key may have decimal digits only.
            if targets.count == 1, targets[0].utf8.count <= 10, let session = try? Parsed.session(targets[0]) {
                return .session(session)
            }
            let keys = targets.compactMap(PageKey.init(argument:))
            guard keys.count == targets.count else {
                throw ValidationError(
                    "a session's number, as 'kvtcctl sessions' shows it, or keys of 64 hexadecimal digits are needed")
            }
            guard keys.count <= ExplainRequest.most else {
                throw ValidationError("at most \(ExplainRequest.most) keys can be asked for at a time")
            }
            return .keys(keys)
        }
    }

    func validate() throws { _ = try target }

    func run() throws {
        let target = try target
        try watch.run(json: json) {
            let report = try report(target)
            let isThere = report.session != nil || report.pages.contains { $0.place != "absent" }
            if !isThere, watch.watch == nil {
                if json { print(try jsonLine(report)) }
                complain(
                    "no page is kept under \(targets.count == 1 ? "this key" : "these keys"): never pushed by this user, "
                        + "evicted, dropped, or of a model that no session has used since the daemon started\n"
                        + "'kvtcctl explain SESSION' shows the keys of a session, 'kvtcctl status' what was evicted.")
                throw ExitCode(1)
            }
            return json ? try jsonLine(report) : ExplainView(report).text
        }
    }

    /// All pages, of a session one part after another.
    private func report(_ target: Target) throws -> ExplainReport {
        try connection.withClient(explaining: explain) { client in
            guard client.server.features & Wire.featureExplain != 0 else {
                complain("\(client.server.server) does not know EXPLAIN: upgrade it, then systemctl restart kvtcd")
                throw ExitCode(1)
            }
            func ask(_ request: ExplainRequest) throws -> ExplainReport { try client.call(request).decoded() }
            switch target {
            case .keys(let keys): return try ask(ExplainRequest(session: Wire.none, keys: keys))
            case .session(let session):
                var report = try ask(ExplainRequest(session: session))
                while let next = report.next {
                    let more = try ask(ExplainRequest(session: session, first: UInt32(clamping: next)))
                    report.pages += more.pages
                    report.next = more.next
                }
                return report
            }
        }
    }

    private func explain(_ error: ClientError) -> String? {
        guard case .refused(let reason) = error, reason.code == .unknownSession else { return nil }
        return "\(reason.message) of this user is open\n"
            + "'kvtcctl sessions' lists those that are. A session ends with the connection that opened it; its pages stay, and can be "
            + "asked for by their keys."
    }
}
