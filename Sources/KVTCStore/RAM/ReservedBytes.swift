import KVTCSystem

/// Bytes of RAM that tenants have taken for pages that are not in the index yet.
final class ReservedBytes: Sendable {
    private let byTenant = RankedMutex<[UInt32: Int]>([:], rank: .reserved)

    func of(_ tenant: UInt32) -> Int { byTenant.withLock { $0[tenant] ?? 0 } }

    func add(_ bytes: Int, to tenant: UInt32) {
        byTenant.withLock { byTenant in
            let sum = (byTenant[tenant] ?? 0) + bytes
            byTenant[tenant] = sum == 0 ? nil : sum
        }
    }
}
