import CAllocationCount
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// After the first pages of a kind, decoding allocates nothing.
@Suite struct AllocationTests {
    private func allocations(_ body: () throws -> Void) rethrows -> UInt64 {
        let before = kv_allocation_count()
        try body()
        return kv_allocation_count() - before
    }

    @Test func theCounterCounts() {
        let count = allocations { UnsafeMutableRawPointer.allocate(byteCount: 100, alignment: 1).deallocate() }
        #expect(count == (kv_counts_allocations() == 1 ? 1 : 0))
    }

    @Test(arguments: [Mode.transform, .lossless, .raw], [[], [0, 1, 40]])
    func decodingAllocatesNothing(mode: Mode, protected: [Int]) throws {
        let real = try RealPages.shared.get()
        let codec = try real.codec()
        let raw = try real.raw(real.pages[1])
        let block = mode == .raw ? raw : try encoded(codec, raw, mode, .ratio(8), protected: protected)
        var output = [UInt8](repeating: 0, count: real.pages[1].bytes.count)
        let layout = PageLayout(element: .f16, grouping: .layerPairs)
        let half = output.count / 2
        func decode() throws {
            try block.withUnsafeBytes { block in
                try output.withUnsafeMutableBytes { output in
                    try codec.decode(block: block, layers: 0..<2, layout: layout, into: output)
                    let decoder = codec.takeDecoder()
                    defer { codec.giveBack(decoder) }
                    try decoder.open(block)
                    for layer in 0..<2 {
                        try decoder.write(
                            layers: layer..<layer + 1, layout: layout,
                            into: UnsafeMutableRawBufferPointer(rebasing: output[layer * half..<(layer + 1) * half]))
                    }
                }
            }
        }
        for _ in 0..<3 { try decode() }
        #expect(try allocations(decode) == 0)
    }
}
