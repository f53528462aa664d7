import ArgumentParser
import KVTCClient
import KVTCModel
import KVTCProtocol

extension Mode: ExpressibleByArgument {
    /// The modes by the names that status and policies show.
    public init?(argument: String) {
        guard let mode = Policy.modes.first(where: { "\($0)" == argument }) else { return nil }
        self = mode
    }

    /// What help and completion offer.
    public static var allValueStrings: [String] { Policy.modes.map { "\($0)" } }
}

/// When pages are coded, or that this is for the daemon to say.
struct CodeChoice: ExpressibleByArgument {
    let value: CodingTime?

    /// The name of a time, or `default`.
    init?(argument: String) {
        value = CodingTime(rawValue: argument)
        guard value != nil || argument == "default" else { return nil }
    }

    /// What help and completion offer.
    static var allValueStrings: [String] { CodingTime.allCases.map(\.rawValue) + ["default"] }
}

/// A bound on the distortion, or none.
struct DistortionBound {
    let value: Float?

    /// A number above 0 and below 1, or `off`; the daemon says how small it may be.
    init(_ text: String) throws {
        value = Float(text)
        guard text == "off" || value.map({ $0 > 0 && $0 < 1 }) == true else {
            throw ValidationError("a number above 0 and below 1 is needed, such as 0.01, or 'off'")
        }
    }
}

struct PolicySet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set",
        abstract: "Change the policy of a live session; what is not named stays as it is.",
        discussion: """
            A window that grows protects what is still raw and reports what is lossy already; one that shrinks hands \
            pages to the coder.

            EXAMPLES
              kvtcctl policy set 3 --window 256
              kvtcctl policy set 3 --mode transform --ratio 32
              kvtcctl policy set 3 --protect 100-164 --protect 900-964
              kvtcctl policy set 3 --pin --ttl 3600
              kvtcctl policy set 3 --limit 0.02 --near 0.002
              kvtcctl policy set 3 --near off --no-keep-outliers
              kvtcctl policy set 3 --code idle
            """)

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: "The session's number, as 'kvtcctl sessions' shows it.", transform: Parsed.session)
    var session: UInt32

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Tokens at the start that stay lossless.", valueName: "tokens"),
        transform: Parsed.number(of: "tokens"))
    var sink: UInt32?

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Tokens at the end that stay lossless.", valueName: "tokens"),
        transform: Parsed.number(of: "tokens"))
    var window: UInt32?

    @Option(
        parsing: .unconditional, help: ArgumentHelp("How pages that leave the window are coded.", valueName: "mode"))
    var mode: Mode?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "When: as soon as a coder is free, when the daemon has nothing else to do, when its RAM runs short, or as sessions.code says.",
            valueName: "time"))
    var code: CodeChoice?

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Aim for this many raw bytes per stored byte.", valueName: "ratio"),
        transform: Parsed.ratio)
    var ratio: Float?

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Stay below this relative squared error.", valueName: "error"),
        transform: Parsed.distortion)
    var distortion: Float?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "No coded page exceeds this error, whatever the ratio: it gets a lower one or stays lossless; or 'off'.",
            valueName: "error"), transform: DistortionBound.init)
    var limit: DistortionBound?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "While the session is idle (sessions.near_after_s and up to 10 s more) or closed, code its window within this error; 'off' keeps it lossless.",
            valueName: "error"), transform: DistortionBound.init)
    var near: DistortionBound?

    @Flag(
        inversion: .prefixedNo, exclusivity: .exclusive,
        help: "Keep rows lossless that are far stronger than any that was calibrated on.")
    var keepOutliers: Bool?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Also keep positions BEGIN up to, not including, END; repeatable.", valueName: "begin-end"),
        transform: PolicySet.range)
    var protect: [PositionRange] = []

    @Flag(help: "Forget the protected ranges there were (before adding those of --protect).")
    var unprotect = false

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("0 goes first under pressure, 255 last; 128 is normal.", valueName: "0-255"),
        transform: Parsed.whole(0...255))
    var priority: UInt8?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Seconds a page lives after its last use; 0 for ever.", valueName: "seconds"),
        transform: Parsed.number(of: "seconds"))
    var ttl: UInt32?

    @Flag(
        inversion: .prefixedNo, exclusivity: .exclusive,
        help: "Never evict the session's pages from the daemon, nor let them expire.")
    var pin: Bool?

    @Flag(help: "Print {\"session\", \"raw_tokens\", \"already_coded\"}.")
    var json = false

    func validate() throws {
        if ratio != nil, distortion != nil { throw ValidationError("Give --ratio or --distortion, not both.") }
        let given: [Any?] = [
            sink, window, mode, code, ratio, distortion, priority, ttl, pin, limit, near, keepOutliers,
        ]
        if given.allSatisfy({ $0 == nil }), protect.isEmpty, !unprotect {
            throw ValidationError("Nothing to change: name at least one option, such as --window 256.")
        }
    }

    func run() throws {
        let reply = try connection.withClient(explaining: explain) { client in
            var policy = try client.call(GetPolicyRequest(session: session)).policy
            apply(to: &policy)
            guard code == nil || client.server.features & Wire.featureCode != 0 else {
                throw ClientError.refused(
                    WireError(
                        .badVersion, field: "policy.code", "\(client.server.server) codes all pages at once: upgrade it"
                    ))
            }
            return try client.call(SetPolicyRequest(session: session, policy: policy))
        }
        let coded = reply.alreadyCoded
        if json {
            print(
                try jsonLine(
                    Change(
                        session: session, rawTokens: reply.rawTokens, alreadyCoded: coded.map { [$0.begin, $0.end] })))
            return
        }
        let raw = UInt64(reply.rawTokens)
        let rest = raw == 0 ? "" : "; \(Text.count(raw, "token is", "tokens are")) still as pushed"
        print("policy of session \(session) changed\(rest)")
        if !coded.isEmpty {
            let list = coded.map { "\($0.begin)-\($0.end)" }.joined(separator: " ")
            Terminal.show(Terminal.wrapped("protected too late, lossy already: \(list)"))
        }
    }

    private struct Change: Encodable {
        var session, rawTokens: UInt32
        var alreadyCoded: [[UInt32]]
    }

    /// `BEGIN-END`, the end not included.
    @Sendable private static func range(_ text: String) throws -> PositionRange {
        let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt32($0) }
        guard ends.count == 2, let begin = ends[0], let end = ends[1], begin < end else {
            throw ValidationError("two positions BEGIN-END are needed, BEGIN below END, such as 100-164")
        }
        return PositionRange(begin: begin, end: end)
    }

    /// A complaint about a field of the policy, by the name of the option that sets it.
    private func explain(_ error: ClientError) -> String? {
        guard case .refused(let reason) = error, reason.field.hasPrefix("policy.") else { return nil }
        let field = String(reason.field.dropFirst("policy.".count))
        let options = [
            "ttlSeconds": "ttl", "protected": "protect", "distortionLimit": "limit",
            "quality": distortion == nil ? "ratio" : "distortion",
        ]
        return "--\(options[field] ?? field): \(reason.message)"
    }

    private func apply(to policy: inout Policy) {
        policy.sink = sink ?? policy.sink
        policy.window = window ?? policy.window
        policy.mode = mode ?? policy.mode
        if let code { policy.code = code.value }
        policy.priority = priority ?? policy.priority
        policy.ttlSeconds = ttl ?? policy.ttlSeconds
        policy.pin = pin ?? policy.pin
        if let ratio { (policy.qualityKind, policy.quality) = (.ratio, ratio) }
        if let distortion { (policy.qualityKind, policy.quality) = (.distortion, distortion) }
        if let limit { policy.distortionLimit = limit.value }
        if let near { policy.near = near.value }
        policy.keepsOutliers = keepOutliers ?? policy.keepsOutliers
        if unprotect { policy.protected = [] }
        policy.protected += protect
    }
}
