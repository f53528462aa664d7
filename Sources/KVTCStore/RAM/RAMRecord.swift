/// What an arena's directory says of one page in it; the article RAMFormat documents the bytes.
package struct RAMRecord: Hashable, Sendable {
    var key: StoreKey
    var attributes: PageAttributes
    /// Where the page begins in the arena's data.
    var offset = 0
    var length: Int
    var hash: UInt64
    /// Grows with every record of a process and its successors; of two records of a key the higher one counts.
    var sequence: UInt64
    /// Position in the order of use; not covered by the checksum, because it changes with every use.
    var lastUse: UInt64
    /// The slot that says so.
    var slot = 0
}
