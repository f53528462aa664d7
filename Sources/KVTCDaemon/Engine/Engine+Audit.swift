import KVTCProtocol
import KVTCStore
import Logging

extension Engine {
    /// Leaves in the log who had something done that others may wonder about.
    func audit(_ what: Logger.Message, _ caller: Caller, _ details: Logger.Metadata, level: Logger.Level = .info) {
        log.log(level: level, what, metadata: details.merging(caller.who) { $1 })
    }

    /// Forgets pages, counts them and leaves word of it. What a tenant drops of its own, page by page, is its daily business.
    func dropAndAudit(_ request: DropRequest, _ caller: Caller) throws(WireError) -> DropReply {
        let isOwn = request.session == Wire.none
        let tenant = isOwn ? caller.tenant : try session(request.session, caller).tenant
        let reply = try drop(request, caller)
        metrics.count(tenant) { $0.droppedByRequest += UInt64(reply.dropped) }
        audit(
            "pages dropped", caller,
            [
                "pages": "\(reply.dropped)", "tenant": "\(tenant)", "session": isOwn ? "all" : "\(request.session)",
                "keys": request.keys.isEmpty ? "all" : "\(request.keys.count)",
            ], level: caller.isAdministrator || isOwn && request.keys.isEmpty ? .info : .debug)
        return reply
    }

    func flushAndAudit(
        _ request: FlushRequest, _ keys: [StoreKey]?, _ caller: Caller
    ) throws(WireError) -> FlushReply {
        let reply = try flush(keys, caller)
        audit(
            "pages flushed", caller,
            [
                "pages": "\(reply.pages)", "bytes": "\(reply.bytes)",
                "session": request.session == Wire.none ? "all" : "\(request.session)",
            ], level: caller.isAdministrator ? .info : .debug)
        return reply
    }

    func setPolicyAndAudit(_ request: SetPolicyRequest, _ caller: Caller) throws(WireError) -> SetPolicyReply {
        let reply = try setPolicy(request, caller)
        audit(
            "policy changed", caller, ["session": "\(request.session)", "mode": "\(request.policy.mode)"],
            level: caller.isAdministrator ? .info : .debug)
        return reply
    }

    func closeSessionAndAudit(_ request: CloseSessionRequest, _ caller: Caller) throws(WireError) -> EmptyReply {
        let tenant = try session(request.session, caller).tenant
        let reply = try closeSession(request, caller)
        if tenant != caller.tenant {
            audit("session of another user closed", caller, ["session": "\(request.session)", "tenant": "\(tenant)"])
        }
        return reply
    }

    /// Counts a request that gets an error for its answer: apart from faults of the daemon and its disk, since a mistake of a
    /// client is no reason to look after the daemon.
    func countRefusal(_ error: WireError, opcode: UInt16, of tenant: UInt32) {
        // Without a disk tier it is the answer to FLUSH.
        let isFault = error.code == .internalError || error.code == .ioError && store.hasDisk
        let now = store.configuration.clock.wallSeconds()
        metrics.count(tenant) { counters in
            if isFault { counters.errors += 1 } else { counters.refusals.add(error, opcode: opcode, time: now) }
        }
    }
}

extension Caller {
    /// The process at the other end, as the kernel knew it when it connected.
    var who: Logger.Metadata {
        guard let peer else { return ["connection": "\(connection)"] }
        return ["uid": "\(peer.uid)", "pid": "\(peer.pid)", "connection": "\(connection)"]
    }
}

/// Requests that got an error for their answer.
struct Refusals: Sendable {
    struct Last: Sendable {
        var error: WireError
        var opcode: UInt16
        /// Seconds since 1970.
        var time: UInt64
    }

    private static let longestMessage = 300

    private(set) var counts: [ErrorCode: UInt64] = [:]
    private(set) var last: Last?

    mutating func add(_ error: WireError, opcode: UInt16, time: UInt64) {
        counts[error.code, default: 0] += 1
        last = Last(error: error, opcode: opcode, time: time)
        // It may quote the client, and stays until the next one.
        last?.error.message = String(error.message.unicodeScalars.prefix(Refusals.longestMessage).map(Character.init))
    }

    static func += (sum: inout Refusals, more: Refusals) {
        sum.counts.merge(more.counts, uniquingKeysWith: +)
        if let last = more.last, last.time >= sum.last?.time ?? 0 { sum.last = last }
    }
}
