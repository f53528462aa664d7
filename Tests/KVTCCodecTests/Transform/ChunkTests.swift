import Dispatch
import KVTCCodec
import KVTCModel
import Synchronization
import TestSupport
import Testing

/// Blocks of version 2, whose components are coded in chunks, beside those of version 1.
@Suite struct ChunkTests {
    let real: RealPages

    init() throws { real = try RealPages.shared.get() }

    /// A block of so many tokens of different texts, one after another, whose keys are not where they were.
    private func block(tokens: Int, ratio: Float) throws -> [UInt8] {
        let rowBytes = real.pages[0].bytes.count / RealPages.tokens
        let rows = real.pages.flatMap(\.bytes)[..<(tokens * rowBytes)]
        let codec = try real.codec()
        let raw = try rows.withUnsafeBytes {
            try codec.wrap(page: $0, layout: RealPages.layout, tokens: tokens, firstPosition: 100)
        }
        return try raw.withUnsafeBytes {
            try codec.encode(
                block: $0, mode: .transform, quality: .ratio(ratio), protected: RowSet(count: tokens),
                keepOutliers: false)
        }
    }

    private func page(_ block: [UInt8], _ kernels: KernelTable = .best) throws -> [UInt8] {
        try decoded(try real.codec(kernels), block, RealPages.layout, tokens: try header(block).tokens)
    }

    @Test(arguments: [1, 8, 16, 60, 64, 300], [Float(4), 16])
    func sizeIsWithinAHundredthOfVersion1(tokens: Int, ratio: Float) throws {
        let block = try block(tokens: tokens, ratio: ratio)
        let head = try header(block)
        guard head.mode == .transform else { return #expect(tokens == 1) }
        let stream = try real.codec().recoded(block, as: .stream)
        #expect(head.version == 2)
        #expect(try header(stream).version == 1)
        // A directory of 4 bytes, and up to 12 of the allocation, are much where a block has a hundred.
        #expect(block.count <= stream.count * 101 / 100 + 16)
        #expect(try page(block) == page(stream))
    }

    @Test func anyStatesAndChunksGiveTheSamePageOnEveryTier() throws {
        let block = try block(tokens: 61, ratio: 6)
        let whole = try page(block)
        let codec = try real.codec()
        for (lanes, chunks) in [(1, 1), (1, 1000), (3, 7), (8, 2), (13, 5), (16, 16), (17, 3), (32, 1), (32, 12)] {
            let other = try codec.recoded(block, as: .chunks(lanes: lanes, chunks: chunks))
            #expect(other != block)
            for kernels in KernelTable.all {
                #expect(try page(other, kernels) == whole, "\(chunks) chunks of \(lanes) states")
            }
        }
    }

    @Test(arguments: [(64, 64), (64, 61), (300, 300), (1, 64)])
    func twoPagesTogetherAreThePagesAlone(tokens: Int, others: Int) throws {
        // Other codes, and other ones that a sum takes.
        let (first, second) = (try block(tokens: tokens, ratio: 6), try block(tokens: others, ratio: 16))
        for kernels in KernelTable.all {
            let codec = try real.codec(kernels)
            let (decoder, other) = (codec.takeDecoder(), codec.takeDecoder())
            defer { for decoder in [decoder, other] { codec.giveBack(decoder) } }
            let alone = [try page(first), try page(second)]
            var together = alone.map { [UInt8](repeating: 0, count: $0.count) }
            var beside = together.removeLast()
            try first.withUnsafeBytes { first in
                try second.withUnsafeBytes { second in
                    try decoder.open(first)
                    try other.open(second)
                    try together[0].withUnsafeMutableBytes { output in
                        try beside.withUnsafeMutableBytes {
                            try decoder.write(
                                layers: 0..<codec.geometry.layers, layout: RealPages.layout, into: output, and: other,
                                into: $0)
                        }
                    }
                }
            }
            #expect(together + [beside] == alone)
        }
    }

    @Test func chunksOnSeveralThreadsGiveTheSamePage() throws {
        let codec = try real.codec()
        let block = try codec.recoded(block(tokens: 64, ratio: 6), as: .chunks(lanes: 8, chunks: 20))
        let chunks = Mutex<Set<Int>>([])
        func open(_ block: [UInt8], _ decoder: PageDecoder) throws {
            try block.withUnsafeBytes {
                try decoder.open($0) { count, body in
                    DispatchQueue.concurrentPerform(iterations: count) { chunk in
                        body(chunk)
                        chunks.withLock { _ = $0.insert(chunk) }
                    }
                }
            }
        }
        let decoder = codec.takeDecoder()
        defer { codec.giveBack(decoder) }
        var output = [UInt8](repeating: 0, count: real.pages[0].bytes.count)
        try open(block, decoder)
        try output.withUnsafeMutableBytes {
            try decoder.write(layers: 0..<codec.geometry.layers, layout: RealPages.layout, into: $0)
        }
        #expect(output == (try page(block)))
        #expect(chunks.withLock { $0.count } == 20)
        // One chunk that is not what was coded is enough.
        var broken = block
        broken[block.count - 1] ^= 1
        reseal(&broken)
        #expect(throws: CodecError.self) { try open(broken, decoder) }
    }
}
