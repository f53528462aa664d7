/// Pages of a conversation that are used together, from its beginning.
public struct PageUse: Sendable {
    /// The place in the order of uses.
    public let place: UInt64
    /// The pages, there or not.
    public let pages: [StoreKey]

    /// One of them.
    struct Part {
        let use: PageUse
        let index: Int
        /// Those before it.
        var before: ArraySlice<StoreKey> { use.pages[..<index] }
    }
}
