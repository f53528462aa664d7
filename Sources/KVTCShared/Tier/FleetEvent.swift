/// What those who run a fleet should hear of, once for each change.
public enum FleetEvent: Sendable, CustomStringConvertible {
    /// A server is lost or back, or there are others.
    case servers(RedisEvent)
    /// Pages are not written for now.
    case writesPaused(RedisFault)
    /// They are again.
    case writesResumed
    /// So many removals are forgotten, since too many wait: the pages stay there until they expire or make room.
    case removalsLost(Int)
    /// A profile of another machine is here now.
    case profileTaken(name: String, id: String)
    /// A profile of another machine is of no use here.
    case profileRefused(name: String, reason: String)

    /// A line for the log.
    public var description: String {
        switch self {
        case .servers(let event): event.description
        case .writesPaused(.full): "no pages are written to the fleet for now: its servers have no memory left"
        case .writesPaused(let fault): "no pages are written to the fleet for now (\(fault.rawValue))"
        case .writesResumed: "pages are written to the fleet again"
        case .removalsLost(let count): "\(count) pages are not removed from the fleet: too many wait for that"
        case .profileTaken(let name, let id): "profile taken from the fleet: \(name) (\(id))"
        case .profileRefused(let name, let reason): "profile of the fleet left out: \(name): \(reason)"
        }
    }
}
