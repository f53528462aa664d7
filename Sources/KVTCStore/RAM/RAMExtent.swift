/// A piece of an arena that holds one page. A holder of the object may read it; the room is free again when the last
/// holder lets go, so a page can be evicted while it is being read.
final class RAMExtent: @unchecked Sendable {
    // Justified: `slot` and `isDetached` are read and written under the store's index lock only.
    let arena: RAMArena
    let length: Int
    private let range: Range<Int>
    private var slot: Int?
    private var isDetached = false

    init(_ arena: RAMArena, _ range: Range<Int>, length: Int, slot: Int?) {
        self.arena = arena
        self.length = length
        self.range = range
        self.slot = slot
    }

    /// The extent of a page that was compact.
    convenience init(_ arena: RAMArena, place: UInt32, length: Int, slot: UInt32) {
        let begin = Int(place) * ExtentAllocator.granularity
        self.init(arena, begin..<begin + ExtentAllocator.rounded(length)!, length: length, slot: Int(slot))
    }

    /// Gives what is needed to make this object again, and leaves the room to the page. For the last holder, of a page that
    /// is published.
    func detach() -> (place: UInt32, slot: UInt32) {
        isDetached = true
        return (UInt32(range.lowerBound / ExtentAllocator.granularity), UInt32(slot!))
    }

    deinit {
        if isDetached { return }
        // A page that still has a slot is left as it is: a process that ends must not take its pages along.
        if slot == nil { arena.wipe(range) }
        arena.release(range)
    }

    /// The page's bytes; written once before the extent is published, only read afterwards.
    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: arena.data(range.lowerBound), count: length)
    }

    /// Puts the page's bytes in place.
    func fill(_ source: UnsafeRawBufferPointer) {
        precondition(source.count == length)
        fill(by: { $0.copyMemory(from: source) })
    }

    /// Lets the caller put the page's bytes in place, so that they need not be elsewhere before.
    func fill<Value, Failure: Error>(
        by body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Value
    ) throws(Failure) -> Value {
        defer { arena.wrote() }
        return try body(UnsafeMutableRawBufferPointer(start: arena.data(range.lowerBound), count: length))
    }

    /// Makes the page one that outlives the process, or changes what is said of it. Under the index lock.
    func publish(_ record: RAMRecord) {
        var record = record
        record.offset = range.lowerBound
        let before = slot
        slot = arena.write(record)
        if let before { arena.free(before) }
    }

    /// Takes that back: after a kill the page is not found here. Under the index lock.
    func retract() {
        guard let slot else { return }
        arena.free(slot)
        self.slot = nil
    }

    /// Notes when the page was used last. Under the index lock.
    func noteUse(_ use: UInt64) { if let slot { arena.noteUse(slot, use) } }
}
