import ArgumentParser
import KVTCProtocol

struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Show or change what a live session protects and how well it is coded.",
        discussion: """
            EXAMPLES
              kvtcctl policy get 3
              kvtcctl policy set 3 --window 256
            """,
        subcommands: [PolicyGet.self, PolicySet.self])
}

/// A policy as JSON prints it, with the names of STATUS.
struct PolicyDocument: Encodable {
    var session, tokens, sink, window: UInt32
    var mode, qualityKind: String
    // As given: 0.01 is not 0.009999999776482582.
    var quality: Float
    var priority: UInt8
    var pinned: Bool
    var ttlS: UInt32
    var protected: [[UInt32]]
    /// Nil while the window stays lossless.
    @OrNull var near: Float?
    @OrNull var distortionLimit: Float?
    var keepOutliers: Bool
    /// Nil where that is for the daemon to say.
    @OrNull var code: String?

    init(session: UInt32, reply: GetPolicyReply) {
        let policy = reply.policy
        self.session = session
        tokens = reply.tokens
        sink = policy.sink
        window = policy.window
        mode = "\(policy.mode)"
        qualityKind = "\(policy.qualityKind)"
        quality = policy.quality
        priority = policy.priority
        pinned = policy.pin
        ttlS = policy.ttlSeconds
        protected = policy.protected.map { [$0.begin, $0.end] }
        near = policy.near
        distortionLimit = policy.distortionLimit
        keepOutliers = policy.keepsOutliers
        code = policy.code?.rawValue
    }

    /// The policy for people.
    var lines: [String] {
        let ranges = protected.map { "\($0[0])-\($0[1])" }.joined(separator: " ")
        let meaning = qualityKind == "ratio" ? "raw bytes over stored bytes" : "bound on the relative squared error"
        let unused = mode == "lossless" ? ", not used by lossless" : ""
        let facts = [
            "session    \(session), \(Text.count(UInt64(tokens), "token"))",
            "sink       \(Text.count(UInt64(sink), "token"))",
            "window     \(Text.count(UInt64(window), "token"))",
            "protected  \(ranges.isEmpty ? "nothing else" : ranges)",
            "mode       \(mode)",
            "quality    \(qualityKind) \(PolicyDocument.number(quality)) (\(meaning)\(unused))",
            "coded      \(PolicyDocument.times[code ?? ""] ?? "")",
            "limit      \(distortionLimit.map { "distortion \($0), at the ratio's cost" } ?? "none")",
            "idle       window \(near.map { "within distortion \($0)" } ?? "lossless")",
            "outliers   \(keepOutliers ? "lossless" : "coded like other rows")",
            "priority   \(priority)\(pinned ? ", pinned" : "")",
            "ttl        \(ttlS == 0 ? "none" : Text.duration(Double(ttlS)))",
        ]
        return facts.flatMap { Terminal.wrapped(Terminal.shown($0), indent: 11) }
    }

    private static let times = [
        "": "when the daemon's configuration says (sessions.code)", "at_once": "as soon as a coder is free",
        "idle": "as soon as the daemon has nothing else to do", "under_pressure": "when RAM runs short",
    ]

    /// 16 for 16.0.
    private static func number(_ value: Float) -> String {
        UInt32(exactly: value).map { "\($0)" } ?? "\(value)"
    }
}
