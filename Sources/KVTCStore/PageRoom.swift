/// Room in RAM for one page that nobody can see yet. It is free again when the last reference is let go.
public struct PageRoom: Sendable {
    let key: StoreKey
    let extent: RAMExtent

    /// Lets `fill` write the page, all of its bytes, and say what their XXH3-64 is, which it may have taken on the way. Once,
    /// on any thread.
    public func filled<Failure: Error>(
        by fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> UInt64
    ) throws(Failure) -> FilledPage {
        FilledPage(key: key, extent: extent, hash: try extent.fill(by: fill))
    }
}

/// A page in the store's memory that ``Store/put(_:attributes:)`` makes one that can be found.
public struct FilledPage: Sendable {
    let key: StoreKey
    let extent: RAMExtent
    let hash: UInt64
}
