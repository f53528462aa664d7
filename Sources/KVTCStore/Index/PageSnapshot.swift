/// What a writer needs of a page, taken under the index lock.
struct PageSnapshot: Sendable {
    let extent: RAMExtent
    let attributes: PageAttributes
    let hash: UInt64
    let version: UInt32
    let lastUse: UInt64
}
