/// What keeps some pages fetchable for a time.
struct Lease {
    var deadline: UInt64
    let entries: [StoreKey: PageEntry]
}
