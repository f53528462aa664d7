import KVTCProtocol
import KVTCSystem

/// What tenants hold across their connections.
final class Quota: Sendable {
    private struct Held: Equatable {
        var arenaBytes = 0
        var arenas = 0
        var requestBytes = 0
    }

    private struct State {
        var tenants: [UInt32: Held] = [:]
        var arenas = 0

        mutating func change(_ tenant: UInt32, _ body: (inout Held) -> Void) {
            body(&tenants[tenant, default: Held()])
            if tenants[tenant] == Held() { tenants[tenant] = nil }
        }
    }

    let room: DescriptorRoom
    private let state = Monitor(State())

    init(room: DescriptorRoom) { self.room = room }

    /// Charges an arena to a tenant until the result goes away.
    func takeArena(
        _ bytes: Int, tenant: UInt32, limits: DaemonConfiguration.Limits
    ) throws(WireError) -> QuotaCharge {
        try state.withLock { (state) throws(WireError) in
            let held = state.tenants[tenant] ?? Held()
            guard held.arenas < limits.arenasPerUser else {
                throw WireError(.limitExceeded, field: "arena", "more than \(limits.arenasPerUser) arenas of one user")
            }
            guard held.arenaBytes <= limits.arenaBytesPerUser - bytes else {
                throw WireError(
                    .limitExceeded, field: "bytes",
                    "the arenas of one user hold at most \(limits.arenaBytesPerUser) bytes")
            }
            guard state.arenas < room.arenas else {
                throw WireError(.limitExceeded, field: "arena", "too many arenas")
            }
            state.arenas += 1
            state.change(tenant) {
                $0.arenas += 1
                $0.arenaBytes += bytes
            }
        }
        return QuotaCharge { [self] in returnArena(bytes, tenant: tenant) }
    }

    private func returnArena(_ bytes: Int, tenant: UInt32) {
        state.withLock { state in
            state.arenas -= 1
            state.change(tenant) {
                $0.arenas -= 1
                $0.arenaBytes -= bytes
            }
        }
    }

    /// Waits until a request of that size fits into what the tenant may have in work, and charges it until the result
    /// goes away; nil when the time was over first. One request alone always fits. The answers to others make room, so this
    /// waits for no client.
    func takeRequest(_ bytes: Int, tenant: UInt32, limit: Int, until deadline: UInt64?) -> QuotaCharge? {
        let isTaken: Bool? = state.wait(until: deadline) { state in
            let used = state.tenants[tenant]?.requestBytes ?? 0
            guard used == 0 || used <= limit - bytes else { return nil }
            state.change(tenant) { $0.requestBytes += bytes }
            return true
        }
        return isTaken.map { _ in QuotaCharge { [self] in returnRequest(bytes, tenant: tenant) } }
    }

    private func returnRequest(_ bytes: Int, tenant: UInt32) {
        state.update { $0.change(tenant) { $0.requestBytes -= bytes } }
    }
}

/// What a tenant was charged, given back when the last holder lets go: an arena when its memory is gone, the bytes of a request
/// when it is no longer in work.
final class QuotaCharge: Sendable {
    private let giveBack: @Sendable () -> Void

    fileprivate init(_ giveBack: @escaping @Sendable () -> Void) { self.giveBack = giveBack }

    deinit { giveBack() }
}
