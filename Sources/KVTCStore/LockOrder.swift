import KVTCSystem

// The store's locks, in the order in which a thread may take them. The daemon's, with which it calls the store, come
// before.
extension LockRank {
    /// ``Store/surplus``: held while pages move from arenas that the budget has no place for.
    static let surplus = LockRank(16)
    /// ``Store/log``: the only writer of the disk, held over writes and syncs.
    static let log = LockRank(17)
    /// ``Store/index``: never held over I/O.
    static let index = LockRank(18)
    /// ``Store/unopened``.
    static let unopened = LockRank(19)
    /// The arenas of a ``RAMTier``.
    static let arenas = LockRank(20)
    /// The room of one arena.
    static let room = LockRank(21)
    /// The slots of its directory.
    static let slots = LockRank(22)
    /// ``ReservedBytes``.
    static let reserved = LockRank(23)
    /// Why a ``RAMTier`` got no arena.
    static let refusal = LockRank(24)
}
