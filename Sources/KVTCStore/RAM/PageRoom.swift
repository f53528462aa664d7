/// Room in RAM for one page that cannot be found yet. It is free again when the last reference is let go.
public struct PageRoom: Sendable {
    let key: StoreKey
    let room: RAMReservation

    /// Lets `fill` write the page, all of its bytes, and say what their XXH3-64 is, which it may have taken on the way. Once,
    /// on any thread.
    public func filled<Failure: Error>(
        by fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> UInt64
    ) throws(Failure) -> FilledPage {
        FilledPage(key: key, room: room, hash: try room.extent.fill(by: fill))
    }
}

/// A page in the store's memory that ``Store/put(_:attributes:after:)`` makes one that can be found.
public struct FilledPage: Sendable {
    let key: StoreKey
    let room: RAMReservation
    let hash: UInt64
}
