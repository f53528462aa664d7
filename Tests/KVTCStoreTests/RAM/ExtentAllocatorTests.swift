import KVTCStore
import StoreSimulation
import TestSupport
import Testing

@Suite struct ExtentAllocatorTests {
    @Test func roundsAndMerges() {
        var allocator = ExtentAllocator(capacity: 4 * 512 + 100)
        #expect(allocator.capacity == 2048)
        let a = allocator.allocate(1)
        let b = allocator.allocate(512)
        let c = allocator.allocate(513)
        #expect(a == 0..<512 && b == 512..<1024 && c == 1024..<2048)
        #expect(allocator.used == 2048 && allocator.allocate(1) == nil)
        allocator.release(a!)
        allocator.release(c!)
        #expect(allocator.freeRanges == [0..<512, 1024..<2048])
        #expect(allocator.allocate(1025) == nil)
        allocator.release(b!)
        #expect(allocator.freeRanges == [0..<2048])
        #expect(allocator.allocate(2048) == 0..<2048)
    }

    @Test(arguments: [0, -1, Int.min, Int.max, Int.max - 510])
    func refusesSizesThatMakeNoSense(bytes: Int) {
        var allocator = ExtentAllocator(capacity: 1 << 20)
        #expect(allocator.allocate(bytes) == nil)
        #expect(allocator.freeRanges == [0..<1 << 20])
    }

    @Test func emptySpaceHasNoRoom() {
        var allocator = ExtentAllocator(capacity: 511)
        #expect(allocator.capacity == 0 && allocator.allocate(1) == nil)
    }

    /// Compares with a map of units: ranges never overlap, free ranges are exactly the gaps, and a request fails only
    /// when no gap is large enough.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func agreesWithUnitMap(seed: UInt64) {
        print("allocator seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let units = 97
        var allocator = ExtentAllocator(capacity: units * 512)
        var taken = [Bool](repeating: false, count: units)
        var held: [Range<Int>] = []
        for _ in 0..<4000 {
            if Bool.random(using: &generator) || held.isEmpty {
                let bytes = Int.random(in: 1...(12 * 512), using: &generator)
                let need = (bytes + 511) / 512
                let gap = gaps(taken).first { $0.count >= need }
                let range = allocator.allocate(bytes)
                #expect((range == nil) == (gap == nil))
                guard let range else { continue }
                #expect(range.count == need * 512 && range.lowerBound % 512 == 0)
                for unit in range.lowerBound / 512..<range.upperBound / 512 {
                    #expect(!taken[unit])
                    taken[unit] = true
                }
                held.append(range)
            } else {
                let range = held.remove(at: Int.random(in: 0..<held.count, using: &generator))
                allocator.release(range)
                for unit in range.lowerBound / 512..<range.upperBound / 512 { taken[unit] = false }
            }
            #expect(allocator.used == taken.count { $0 } * 512)
            #expect(allocator.freeRanges == gaps(taken).map { $0.lowerBound * 512..<$0.upperBound * 512 })
        }
    }

    private func gaps(_ taken: [Bool]) -> [Range<Int>] {
        var result: [Range<Int>] = []
        var start: Int?
        for (unit, isTaken) in (taken + [true]).enumerated() {
            if !isTaken {
                start = start ?? unit
            } else if let begin = start {
                result.append(begin..<unit)
                start = nil
            }
        }
        return result
    }
}
