/// Pages in an order: a doubly linked list whose links lie in what it links, so that a page leaves it from the middle in O(1) and it takes
/// no memory of its own.
struct PageList {
    /// No page.
    static let none = UInt32.max

    var oldest = Self.none
    var newest = Self.none
}
