/// A page that other machines keep.
public struct SharedPage: Sendable, Equatable {
    /// As the machine that wrote it knew it; expiry and pins are a machine's own and are not among it.
    public var attributes: PageAttributes
    /// Bytes of the block.
    public var length: Int

    /// A page with these attributes and so many bytes.
    public init(attributes: PageAttributes, length: Int) { (self.attributes, self.length) = (attributes, length) }
}

/// What came of bringing a page from other machines.
public enum SharedOutcome: Sendable {
    /// The page and the bytes of its block, verified.
    case hit(SharedPage, [UInt8])
    /// It is not there.
    case absent
    /// It could not be had now, or was damaged: as good as absent, and counted by the tier.
    case fault
}

/// The tier behind RAM and disk: coded pages that the machines of a fleet share. Whatever is wrong with it is a miss, within a
/// bounded time.
public protocol SharedTier: Sendable {
    /// Which of the pages are there, in one round trip. Returns by the tier's deadline; nil where a page is absent or nothing is
    /// known of it by then.
    func ask(_ keys: [StoreKey]) -> [SharedPage?]
    /// Brings pages. `done` is called once for each, with its index, on a thread of the tier's and in any order, as soon as it is there
    /// or the tier's deadline is over.
    func fetch(_ keys: [StoreKey], _ done: @escaping @Sendable (Int, SharedOutcome) -> Void)
    /// Notes pages that are coded, to be written behind when the tier's budget has room. Never waits.
    func offer(_ keys: [StoreKey])
    /// Removes pages there, as soon as that can be done. Never waits.
    func remove(_ keys: [StoreKey])
}
