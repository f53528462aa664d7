import KVTCSystem

/// What tenants hold across their connections.
final class Quota: Sendable {
    private struct Held {
        var arenaBytes = 0
        var requestBytes = 0
        var isNothing: Bool { arenaBytes == 0 && requestBytes == 0 }
    }

    private let held = Monitor<[UInt32: Held]>([:])

    /// Charges arena memory to a tenant; false when that would be more than `limit`.
    func takeArena(_ bytes: Int, tenant: UInt32, limit: Int) -> Bool {
        held.withLock { held in
            guard held[tenant, default: Held()].arenaBytes <= limit - bytes else { return false }
            held[tenant, default: Held()].arenaBytes += bytes
            return true
        }
    }

    func returnArena(_ bytes: Int, tenant: UInt32) { change(tenant) { $0.arenaBytes -= bytes } }

    /// Waits until a request of that size fits into what the tenant may have in work, and charges it until the result
    /// goes away. One request alone always fits. The answers to others make room, so this waits for nobody outside.
    func takeRequest(_ bytes: Int, tenant: UInt32, limit: Int) -> RequestCharge {
        _ = held.wait { held -> Bool? in
            let used = held[tenant, default: Held()].requestBytes
            guard used == 0 || used <= limit - bytes else { return nil }
            held[tenant, default: Held()].requestBytes += bytes
            return true
        }
        return RequestCharge(quota: self, bytes: bytes, tenant: tenant)
    }

    fileprivate func returnRequest(_ bytes: Int, tenant: UInt32) { change(tenant) { $0.requestBytes -= bytes } }

    private func change(_ tenant: UInt32, _ body: (inout Held) -> Void) {
        held.update { held in
            body(&held[tenant, default: Held()])
            if held[tenant]?.isNothing == true { held[tenant] = nil }
        }
    }
}

/// The bytes of a request in work; they count until the last holder lets go.
final class RequestCharge: Sendable {
    private let quota: Quota
    private let bytes: Int
    private let tenant: UInt32

    fileprivate init(quota: Quota, bytes: Int, tenant: UInt32) {
        self.quota = quota
        self.bytes = bytes
        self.tenant = tenant
    }

    deinit { quota.returnRequest(bytes, tenant: tenant) }
}
