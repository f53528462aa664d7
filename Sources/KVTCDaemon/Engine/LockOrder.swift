import KVTCSystem

// The daemon's locks under which others are taken, in the order in which a thread may take them. The store's come
// after.
extension LockRank {
    /// ``PulledPage/state``: one page of one pull, held while it is found and its symbols are decoded.
    static let pulledPage = LockRank(0)
    /// ``Engine/ledger``.
    static let ledger = LockRank(1)
    /// ``Engine/leases``, never with the ledger.
    static let leases = LockRank(2)
}
