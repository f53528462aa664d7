import ArgumentParser
import CKernels
import Glibc
import KVTCCalibration
import KVTCCodec

/// The entropy coder in its two forms, on synthetic codes; `EntropyCoding.md` has the results.
struct EntropyBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "entropy",
        abstract:
            "Chunks of version 2 of a block against the stream of version 1: bytes, and time to decode on every tier.",
        discussion: "One thread, its processor time. Real pages are measured by 'codec'.")

    @OptionGroup var options: Options

    func run() throws {
        var report = Report()
        // As many components as SmolLM2-135M and Llama-3.1-8B have of a basis over all layers.
        let shapes = [("smollm2_16x", 3088), ("smollm2_45x", 1378), ("llama8b_16x", 23_592), ("llama8b_45x", 11_008)]
        for (name, components) in shapes {
            for tokens in options.quick ? [64] : [16, 64, 256] {
                let shape = EntropyShape(components: components, tokens: tokens)
                try shape.measure("\(name)_\(tokens)", rounds: options.quick ? 5 : 25, &report)
            }
        }
        try options.finish(report)
    }
}

/// One page's codes in both forms.
private final class EntropyShape {
    /// Tables of Laplace distributions, as components have about.
    nonisolated(unsafe) private static let tables: UnsafeMutablePointer<kv_table> = {
        // Justified: written once, before it is seen.
        let tables = UnsafeMutablePointer<kv_table>.allocate(capacity: EntropyTables.classes)
        for index in 0..<EntropyTables.classes {
            let width = deviation(index) / 2.0.squareRoot() / Double(1 << EntropyTables.shift(class: index))
            func below(_ x: Double) -> Double { x < 0 ? exp(x / width) / 2 : 1 - exp(-x / width) / 2 }
            var shares = (-15...15).map { below(Double($0) + 0.5) - below(Double($0) - 0.5) }
            shares.append(max(1e-6, 1 - shares.reduce(0, +)))
            let made = kv_table_make(EntropyTables.normalise(shares.map { UInt64($0 * 1e12) }), tables + index)
            precondition(made == 0, "frequencies sum to 4096")
        }
        return tables
    }()

    /// Of a class's codes.
    private static func deviation(_ index: Int) -> Double { exp2(Double(index - 16) / 4) }

    private let rows, count: Int
    /// Codes, [component][row], and where they are decoded to.
    private let codes, output: UnsafeMutablePointer<Int16>
    private let largest: UnsafeMutablePointer<UInt16>
    private let parts: UnsafeMutablePointer<kv_rans_component>
    private let streamParts: UnsafeMutablePointer<kv_component>
    private let words, streamWords: UnsafeMutablePointer<UInt16>
    private let bits: UnsafeMutablePointer<UInt8>
    private var chunks: [kv_rans_chunk] = []
    private var stream: kv_stream
    private var wordCount = 0

    init(components count: Int, tokens: Int) {
        (self.count, rows) = (count, tokens)
        let room = 2 * count * tokens + 4096
        codes = .allocate(capacity: count * tokens)
        output = .allocate(capacity: count * tokens)
        largest = .allocate(capacity: count)
        parts = .allocate(capacity: count)
        streamParts = .allocate(capacity: count)
        words = .allocate(capacity: room)
        streamWords = .allocate(capacity: room)
        bits = .allocate(capacity: 2 * room)
        var random = SplitMix(state: 1)
        for place in 0..<count {
            // The logarithm of a component's deviation falls with that of its number, down to what the step leaves of it.
            let index = Int(55 - 45.5 * log(1 + Double(place)) / log(1 + Double(count)))
            let shift = UInt8(EntropyTables.shift(class: index))
            parts[place] = kv_rans_component(place: UInt32(place), table: UInt8(index), low_bits: shift, doublings: 0)
            streamParts[place] = kv_component(table: EntropyShape.tables + index, low_bits: shift, doublings: 0)
            let width = EntropyShape.deviation(index) / 2.0.squareRoot()
            for token in 0..<tokens {
                let share = Double.random(in: -1..<1, using: &random)
                let code = (width * log(1 - share.magnitude) * (share < 0 ? 1 : -1)).rounded()
                codes[place * tokens + token] = Int16(max(-16_383, min(16_383, code)))
            }
        }
        var buffer = kv_stream_buffer(
            words: streamWords, words_capacity: room, word_count: 0, bits: bits, bits_capacity: 2 * room, bits_length: 0
        )
        let result = kv_stream_encode(codes, streamParts, count, tokens, &buffer)
        precondition(result == 0, "the stream has room")
        stream = kv_stream(
            components: streamParts, count: count, tokens: tokens,
            words: UnsafeRawPointer(streamWords).assumingMemoryBound(to: UInt8.self), word_count: buffer.word_count,
            bits: bits, bits_length: buffer.bits_length)
        let plan = ChunkPlan(active: count, rows: tokens)
        let space = UnsafeMutablePointer<UInt16>.allocate(capacity: room)
        defer { space.deallocate() }
        for index in 0..<plan.chunks {
            let members = plan.components(index)
            var chunk = kv_rans_chunk(
                tables: EntropyShape.tables, components: parts + members.lowerBound, count: members.count, rows: tokens,
                lanes: UInt32(plan.lanes),
                words: UnsafeRawPointer(words + wordCount).assumingMemoryBound(to: UInt8.self),
                word_count: 0)
            chunk.word_count = kv_rans_encode(&chunk, codes, space, room)
            (words + wordCount).update(from: space + room - chunk.word_count, count: chunk.word_count)
            wordCount += chunk.word_count
            chunks.append(chunk)
        }
    }

    deinit {
        for memory in [codes, output] { memory.deallocate() }
        for memory in [largest, words, streamWords] { memory.deallocate() }
        parts.deallocate()
        streamParts.deallocate()
        bits.deallocate()
    }

    private func decodeChunks(_ tier: UnsafePointer<kv_kernels>) throws {
        for index in chunks.indices where tier.pointee.rans.decode(&chunks[index], output, largest) != 0 {
            throw Mismatch("a chunk was not decoded")
        }
    }

    private func decodeStream(_ tier: UnsafePointer<kv_kernels>) throws {
        guard tier.pointee.rans.decode_stream(&stream, output, largest) == 0 else {
            throw Mismatch("a stream was not decoded")
        }
    }

    func measure(_ name: String, rounds: Int, _ report: inout Report) throws {
        let tiers = [kv_scalar(), kv_avx2(), kv_avx512(), kv_amx(), kv_neon()].compactMap(\.self).map {
            (name: String(cString: $0.pointee.name), table: $0)
        }
        let times = try interleaved(
            rounds: rounds, threadTime: true,
            tiers.flatMap { tier in
                [
                    Side("\(tier.name).stream") { try self.decodeStream(tier.table) },
                    Side("\(tier.name).chunks") { try self.decodeChunks(tier.table) },
                ]
            })
        guard memcmp(codes, output, 2 * count * rows) == 0 else { throw Mismatch("other codes came back") }
        let (bytes, streamBytes) = (2 * wordCount + 4 * chunks.count, 2 * stream.word_count + stream.bits_length)
        report.add("entropy.\(name).chunks", Double(chunks.count), "of \(chunks[0].lanes) states")
        report.add("entropy.\(name).bytes", Double(bytes), "bytes a page")
        for tier in tiers {
            let time = times["\(tier.name).chunks"]!
            report.add("entropy.\(name).\(tier.name)", time / Double(count * rows) * 1e9, "ns a code")
            report.add(
                ratio: "entropy_\(name)_\(tier.name)_vs_version1", time / times["\(tier.name).stream"]!, target: "≤ 1")
        }
        report.add(ratio: "entropy_\(name)_bytes_vs_version1", Double(bytes) / Double(streamBytes), target: "≤ 1.01")
    }
}
