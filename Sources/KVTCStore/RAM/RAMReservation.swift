import Synchronization

/// Room that counts towards its tenant's quota before there is a page in it, so that requests that fill theirs side by side
/// cannot take more than the quota together.
final class RAMReservation: Sendable {
    let extent: RAMExtent
    private let bytes: Int
    private let tenant: UInt32
    private let reserved: ReservedBytes
    private let isOpen = Atomic(true)

    /// Nil when the tenant's quota or the RAM is used up. `isWithinQuota` is asked when the bytes count already: of two that ask
    /// at once, at least one sees the other.
    init?(
        _ length: Int, for tenant: UInt32, in ram: RAMTier, _ reserved: ReservedBytes, isWithinQuota: () -> Bool
    ) {
        guard let bytes = ExtentAllocator.rounded(length) else { return nil }
        reserved.add(bytes, to: tenant)
        guard isWithinQuota(), let extent = ram.allocate(length) else {
            reserved.add(-bytes, to: tenant)
            return nil
        }
        self.extent = extent
        self.bytes = bytes
        self.tenant = tenant
        self.reserved = reserved
    }

    deinit { settle() }

    /// The index counts the page from now on, or the room is given back.
    func settle() {
        if isOpen.exchange(false, ordering: .acquiringAndReleasing) { reserved.add(-bytes, to: tenant) }
    }
}
