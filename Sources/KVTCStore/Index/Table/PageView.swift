/// What can be said of a page without its entry.
struct PageView {
    var attributes: PageAttributes
    var length: Int
    var isInRAM: Bool
}
