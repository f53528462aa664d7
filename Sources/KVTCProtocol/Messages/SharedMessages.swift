// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// Asks the servers that a fleet shares something, or has them forget what it keeps there; for administrators.
public struct SharedRequest: WireRequest {
    public typealias Reply = JSONReply
    public static let opcode = Opcode.shared

    /// What is asked for.
    public enum Action: UInt8, Sendable, CaseIterable {
        /// A sign of life of each server: ``SharedServers/Ping``.
        case ping = 0
        /// What each keeps: ``SharedServers/Usage``.
        case usage = 1
        /// That all pages and profiles of the fleet be removed, for about a second: ``SharedServers/Drop``.
        case drop = 2
    }

    public var action = Action.ping
    /// To go on with a drop: ``SharedServers/Drop/next`` of the answer before. Else empty.
    public var place = ""

    public init() {}

    public init(action: Action, place: String = "") { (self.action, self.place) = (action, place) }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("action", &action)
        try coder.field("place", &place)
        guard action == .drop || place.isEmpty else {
            throw WireError(.invalidField, field: "place", "goes with a drop only")
        }
    }
}
