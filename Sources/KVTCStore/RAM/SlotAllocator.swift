/// Slots of a directory in the order of first use; freed ones are used again before a new one is, the last one freed first. A stack:
/// O(1), eight bytes for every free slot.
struct SlotAllocator {
    var free: [Int]
    var used: Int

    mutating func take() -> Int {
        if let slot = free.popLast() { return slot }
        used += 1
        return used - 1
    }
}
