import CKernels
import KVTCCodec
import TestSupport
import Testing

/// Streams of version 1.
@Suite struct StreamKernelTests {
    @Test func streamsReturnEveryCode() {
        let seed: UInt64 = 77
        print("streams: seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for (components, tokens) in [(0, 1), (1, 1), (3, 16), (40, 64), (7, 33), (100, 1)] {
            let tables = (0..<components).map { _ -> UnsafeMutablePointer<kv_table> in
                let counts = (0..<32).map { _ in
                    UInt64.random(in: 0...1 << UInt64.random(in: 0...20, using: &random), using: &random)
                }
                let table = UnsafeMutablePointer<kv_table>.allocate(capacity: 1)
                #expect(kv_table_make(EntropyTables.normalise(counts), table) == 0)
                return table
            }
            defer { tables.forEach { $0.deallocate() } }
            let shifts = (0..<components).map { _ in UInt8.random(in: 0...10, using: &random) }
            let codes = (0..<components * tokens).map { _ in
                Bool.random(using: &random)
                    ? Int16.random(in: -3...3, using: &random) : Int16.random(in: -16_383...16_383, using: &random)
            }
            var parts = zip(tables, shifts).map { kv_component(table: UnsafePointer($0), low_bits: $1, doublings: 0) }
            var coded = codes
            // A component that is not coded comes back as zeros.
            if components > 4 {
                parts[2].table = nil
                for token in 0..<tokens { coded[2 * tokens + token] = 0 }
            }
            var words = [UInt16](repeating: 0, count: codes.count + 64)
            var bits = [UInt8](repeating: 0, count: 2 * codes.count + 8)
            let (count, bitCount) = encode(coded, parts, tokens, &words, &bits)
            for table in [kv_scalar()!] + vectors {
                func decode(_ words: [UInt16], _ wordCount: Int, _ bitCount: Int) -> [Int16]? {
                    var output = [Int16](repeating: 99, count: codes.count)
                    var largest = [UInt16](repeating: 99, count: components)
                    // One byte further, as a section in a block may lie.
                    let stream: [UInt8] = [0] + words.prefix(wordCount).withUnsafeBytes { Array($0) }
                    let result = stream.withUnsafeBufferPointer { stream in
                        bits.withUnsafeBufferPointer { bits in
                            parts.withUnsafeBufferPointer { parts in
                                var job = kv_stream(
                                    components: parts.baseAddress, count: components, tokens: tokens,
                                    words: stream.baseAddress! + 1, word_count: (stream.count - 1) / 2,
                                    bits: bits.baseAddress, bits_length: bitCount)
                                return table.pointee.rans.decode_stream(&job, &output, &largest)
                            }
                        }
                    }
                    guard result == 0 else { return nil }
                    for component in 0..<components {
                        let codes = output[component * tokens..<(component + 1) * tokens]
                        #expect(largest[component] == codes.map(\.magnitude).max())
                    }
                    return output
                }
                #expect(decode(words, count, bitCount) == coded)
                // Cut or lengthened streams are noticed.
                #expect(decode(words, count - 1, bitCount) == nil)
                #expect(decode(words, count + 1, bitCount) == nil)
                if bitCount > 0 { #expect(decode(words, count, bitCount - 1) == nil) }
                // Doubled codes, and those that leave 16 bits.
                for part in parts.indices { parts[part].doublings = 1 }
                let doubled = coded.allSatisfy { abs(Int($0)) < 16_384 } ? coded.map { $0 * 2 } : nil
                #expect(decode(words, count, bitCount) == doubled)
                for part in parts.indices { parts[part].doublings = 0 }
            }
        }
    }

    private func encode(
        _ codes: [Int16], _ parts: [kv_component], _ tokens: Int, _ words: inout [UInt16], _ bits: inout [UInt8]
    ) -> (words: Int, bits: Int) {
        words.withUnsafeMutableBufferPointer { words in
            bits.withUnsafeMutableBufferPointer { bits in
                var buffer = kv_stream_buffer(
                    words: words.baseAddress, words_capacity: words.count, word_count: 0, bits: bits.baseAddress,
                    bits_capacity: bits.count, bits_length: 0)
                #expect(kv_stream_encode(codes, parts, parts.count, tokens, &buffer) == 0)
                // The words it took suffice, and one fewer does not.
                buffer.words_capacity = buffer.word_count - 1
                #expect(kv_stream_encode(codes, parts, parts.count, tokens, &buffer) == -1)
                buffer.words_capacity += 1
                #expect(kv_stream_encode(codes, parts, parts.count, tokens, &buffer) == 0)
                return (buffer.word_count, buffer.bits_length)
            }
        }
    }
}
