import ArgumentParser
import KVTCProtocol

struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Show or change what a live session protects and how well it is coded.",
        subcommands: [PolicyGet.self, PolicySet.self])
}

/// A policy as JSON prints it; the same names as in the protocol's document.
struct PolicyDocument: Encodable {
    var session: UInt32
    var tokens: UInt32
    var sink: UInt32
    var window: UInt32
    var mode: String
    var qualityKind: String
    var quality: Double
    var priority: UInt8
    var pin: Bool
    var ttlSeconds: UInt32
    var protected: [[UInt32]]
    /// Absent while the window stays lossless.
    var near: Float?
    /// Absent without a limit.
    var distortionLimit: Float?
    var keepOutliers: Bool

    init(session: UInt32, reply: GetPolicyReply) {
        let policy = reply.policy
        self.session = session
        tokens = reply.tokens
        sink = policy.sink
        window = policy.window
        mode = "\(policy.mode)"
        qualityKind = "\(policy.qualityKind)"
        quality = Double(policy.quality)
        priority = policy.priority
        pin = policy.pin
        ttlSeconds = policy.ttlSeconds
        protected = policy.protected.map { [$0.begin, $0.end] }
        near = policy.near
        distortionLimit = policy.distortionLimit
        keepOutliers = policy.keepsOutliers
    }

    /// The policy for people.
    var text: String {
        let ranges = protected.map { "\($0[0])-\($0[1])" }.joined(separator: " ")
        let meaning = qualityKind == "ratio" ? "raw bytes over stored bytes" : "bound on the relative squared error"
        let unused = mode == "lossless" ? ", not used by lossless" : ""
        return """
            session    \(session), \(Text.count(UInt64(tokens))) tokens
            sink       \(sink) tokens
            window     \(window) tokens
            protected  \(ranges.isEmpty ? "nothing else" : ranges)
            mode       \(mode)
            quality    \(qualityKind) \(quality) (\(meaning)\(unused))
            limit      \(distortionLimit.map { "distortion \($0), at the ratio's cost" } ?? "none")
            idle       window \(near.map { "within distortion \($0)" } ?? "lossless")
            outliers   \(keepOutliers ? "lossless" : "coded like other rows")
            priority   \(priority)\(pin ? ", pinned" : "")
            ttl        \(ttlSeconds == 0 ? "none" : "\(ttlSeconds) s")
            """
    }
}
