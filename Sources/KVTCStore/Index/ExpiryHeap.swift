/// The pages in RAM or awake that expire, soonest first. Items may be out of date and are checked against the page when popped. At most
/// twice as many as there are rows, or a few thousand.
struct ExpiryHeap {
    private var items: [(expires: UInt64, number: UInt32)] = []
    private static let least = 4096
    private var limit = Self.least

    var count: Int { items.count }
    var first: (expires: UInt64, number: UInt32)? { items.first }

    mutating func push(_ expires: UInt64, _ number: UInt32) {
        if items.count >= limit { thin() }
        items.append((expires, number))
        var child = items.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            if items[parent].expires <= items[child].expires { break }
            items.swapAt(parent, child)
            child = parent
        }
    }

    mutating func pop() -> (expires: UInt64, number: UInt32)? {
        guard let top = items.first else { return nil }
        let last = items.removeLast()
        if items.isEmpty { return top }
        items[0] = last
        sink(0)
        return top
    }

    /// Of a row that pages come into and leave again only the earliest item stays: popping it finds the page that is there
    /// then, and when that expires.
    private mutating func thin() {
        var earliest: [UInt64?] = []
        for item in items {
            let number = Int(item.number)
            if number >= earliest.count {
                earliest.append(contentsOf: repeatElement(nil, count: number + 1 - earliest.count))
            }
            earliest[number] = min(earliest[number] ?? .max, item.expires)
        }
        items.removeAll(keepingCapacity: true)
        for (number, expires) in earliest.enumerated() {
            if let expires { items.append((expires, UInt32(number))) }
        }
        for parent in (0..<items.count / 2).reversed() { sink(parent) }
        limit = max(Self.least, 2 * items.count)
    }

    private mutating func sink(_ number: Int) {
        var parent = number
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < items.count && items[child].expires < items[least].expires { least = child }
            if least == parent { return }
            items.swapAt(parent, least)
            parent = least
        }
    }
}
