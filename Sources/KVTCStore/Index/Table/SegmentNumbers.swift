/// Numbers of 16 bits for the segments that have compact pages.
struct SegmentNumbers {
    struct Pages {
        let segment: Segment
        /// Those that are nowhere else.
        var onDisk = PageList()
        /// Those in RAM too.
        var count = 0
    }

    /// No segment.
    static let none = UInt16.max

    var pages: [Pages?] = []
    private var numbers: [UInt64: UInt16] = [:]

    subscript(_ number: UInt16) -> Segment { pages[Int(number)]!.segment }

    func number(_ id: UInt64) -> UInt16? { numbers[id] }

    /// Counts a page in; nil when there are too many segments.
    mutating func enter(_ segment: Segment) -> UInt16? {
        guard let number = numbers[segment.id] ?? add(segment) else { return nil }
        pages[Int(number)]!.count += 1
        return number
    }

    mutating func leave(_ number: UInt16) { pages[Int(number)]!.count -= 1 }

    private mutating func add(_ segment: Segment) -> UInt16? {
        let index = pages.firstIndex { $0 == nil } ?? pages.count
        guard index < Int(Self.none) else { return nil }
        if index == pages.count { pages.append(nil) }
        pages[index] = Pages(segment: segment)
        numbers[segment.id] = UInt16(index)
        return UInt16(index)
    }

    mutating func forget(_ id: UInt64) {
        guard let number = numbers[id], pages[Int(number)]!.count == 0 else { return }
        numbers[id] = nil
        pages[Int(number)] = nil
    }
}
