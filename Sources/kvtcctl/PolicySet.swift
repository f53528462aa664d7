import ArgumentParser
import KVTCProtocol

extension WireMode: ExpressibleByArgument {
    /// The modes by the names that status and policies show.
    public init?(argument: String) {
        guard let mode = WireMode.allCases.first(where: { "\($0)" == argument }) else { return nil }
        self = mode
    }

    /// What help and completion offer.
    public static var allValueStrings: [String] { allCases.map { "\($0)" } }
}

extension PositionRange: ExpressibleByArgument {
    /// `BEGIN-END`, the end not included.
    public init?(argument: String) {
        let ends = argument.split(separator: "-", omittingEmptySubsequences: false).map { UInt32($0) }
        guard ends.count == 2, let begin = ends[0], let end = ends[1], begin < end else { return nil }
        self.init(begin: begin, end: end)
    }
}

/// A bound on the distortion, or none.
struct DistortionBound: ExpressibleByArgument {
    let value: Float?

    /// A number above 0 and below 1, or `off`; the daemon says how small it may be.
    init?(argument: String) {
        value = Float(argument)
        guard argument == "off" || value.map({ $0 > 0 && $0 < 1 }) == true else { return nil }
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
            """)

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: "The session's number, as 'kvtcctl sessions' shows it.")
    var session: UInt32

    @Option(help: ArgumentHelp("Tokens at the start that stay lossless.", valueName: "tokens"))
    var sink: UInt32?

    @Option(help: ArgumentHelp("Tokens at the end that stay lossless.", valueName: "tokens"))
    var window: UInt32?

    @Option(help: ArgumentHelp("How pages that leave the window are coded.", valueName: "mode"))
    var mode: WireMode?

    @Option(help: ArgumentHelp("Aim for this many raw bytes per stored byte.", valueName: "ratio"))
    var ratio: Float?

    @Option(help: ArgumentHelp("Stay below this relative squared error.", valueName: "error"))
    var distortion: Float?

    @Option(
        help: ArgumentHelp(
            "No coded page exceeds this error, whatever the ratio: it gets a lower one or stays lossless; or 'off'.",
            valueName: "error"))
    var limit: DistortionBound?

    @Option(
        help: ArgumentHelp(
            "While the session is idle or closed, code its window within this error; 'off' keeps it lossless.",
            valueName: "error"))
    var near: DistortionBound?

    @Flag(inversion: .prefixedNo, help: "Keep rows lossless that are far stronger than any that was calibrated on.")
    var keepOutliers: Bool?

    @Option(
        help: ArgumentHelp("Also keep positions BEGIN up to, not including, END; repeatable.", valueName: "begin-end"))
    var protect: [PositionRange] = []

    @Flag(help: "Forget the protected ranges there were (before adding those of --protect).")
    var unprotect = false

    @Option(help: ArgumentHelp("0 goes first under pressure, 255 last; 128 is normal.", valueName: "0…255"))
    var priority: UInt8?

    @Option(help: ArgumentHelp("Seconds a page lives after its last use; 0 for ever.", valueName: "seconds"))
    var ttl: UInt32?

    @Flag(inversion: .prefixedNo, help: "Never evict the session's pages from the daemon.")
    var pin: Bool?

    @Flag(help: "Print {\"rawTokens\", \"alreadyCoded\"}.")
    var json = false

    func validate() throws {
        if ratio != nil, distortion != nil { throw ValidationError("Give --ratio or --distortion, not both.") }
        for value in [ratio, distortion].compactMap({ $0 }) where !(value.isFinite && value > 0) {
            throw ValidationError("--ratio and --distortion take a positive number.")
        }
        let given: [Any?] = [sink, window, mode, ratio, distortion, priority, ttl, pin, limit, near, keepOutliers]
        if given.allSatisfy({ $0 == nil }), protect.isEmpty, !unprotect {
            throw ValidationError("Nothing to change: name at least one option, such as --window 256.")
        }
    }

    func run() throws {
        let reply = try connection.withClient { client in
            var policy = try client.call(GetPolicyRequest(session: session)).policy
            apply(to: &policy)
            return try client.call(SetPolicyRequest(session: session, policy: policy))
        }
        let coded = reply.alreadyCoded
        if json {
            let ranges = coded.map { [$0.begin, $0.end] }
            print("{\"rawTokens\":\(reply.rawTokens),\"alreadyCoded\":\(try jsonLine(ranges))}")
            return
        }
        print("session \(session): policy changed, \(Text.count(UInt64(reply.rawTokens))) tokens are not coded")
        if !coded.isEmpty {
            let list = coded.map { "\($0.begin)-\($0.end)" }.joined(separator: " ")
            print("protected too late, lossy already: \(list)")
        }
    }

    private func apply(to policy: inout WirePolicy) {
        policy.sink = sink ?? policy.sink
        policy.window = window ?? policy.window
        policy.mode = mode ?? policy.mode
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
