import HeapModule

/// The pages in RAM or expanded that expire, soonest first. Items may be out of date and are checked against the page
/// when popped: a use puts an expiry off in O(1), without looking for its item. At most twice as many as there are
/// numbers of pages, or a few thousand.
struct ExpiryHeap {
    struct Item: Comparable {
        let expires: UInt64
        let number: UInt32

        static func < (a: Item, b: Item) -> Bool { (a.expires, a.number) < (b.expires, b.number) }
    }

    private var heap = Heap<Item>()
    private static let least = 4096
    private var limit = Self.least

    var count: Int { heap.count }
    var first: Item? { heap.min }

    mutating func push(_ expires: UInt64, _ number: UInt32) {
        if heap.count >= limit { thin() }
        heap.insert(Item(expires: expires, number: number))
    }

    mutating func pop() -> Item? { heap.popMin() }

    /// Of a number that pages come to and leave again only the earliest item stays: popping it finds the page that is
    /// there then, and when that expires.
    private mutating func thin() {
        var earliest: [UInt64?] = []
        for item in heap.unordered {
            let number = Int(item.number)
            if number >= earliest.count {
                earliest.append(contentsOf: repeatElement(nil, count: number + 1 - earliest.count))
            }
            earliest[number] = min(earliest[number] ?? .max, item.expires)
        }
        heap = Heap(
            earliest.enumerated().lazy.compactMap { number, expires in
                expires.map { Item(expires: $0, number: UInt32(number)) }
            })
        limit = max(Self.least, 2 * heap.count)
    }
}
