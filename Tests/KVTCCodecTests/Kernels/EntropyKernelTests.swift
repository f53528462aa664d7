import CKernels
import KVTCCodec
import TestSupport
import Testing

@Suite struct EntropyKernelTests {
    /// Codes of some components, and how each is coded.
    private final class Codes {
        let tables: UnsafeMutablePointer<kv_table>
        let count, rows: Int
        var components: [kv_rans_component]
        /// [place][row]; a place that no component has stays 0.
        var codes: [Int16]

        init(count: Int, rows: Int, random: inout SeededGenerator) {
            (self.count, self.rows) = (count, rows)
            tables = .allocate(capacity: 8)
            for index in 0..<8 {
                let counts = (0..<32).map { _ in
                    UInt64.random(in: 0...1 << UInt64.random(in: 0...20, using: &random), using: &random)
                }
                #expect(kv_table_make(EntropyTables.normalise(counts), tables + index) == 0)
            }
            // Every third place is of a component that is not coded, and so is nothing of the chunk.
            components = (0..<count).map { index in
                kv_rans_component(
                    place: UInt32(index + index / 2), table: UInt8.random(in: 0..<8, using: &random), low_bits: 0,
                    doublings: 0)
            }
            codes = [Int16](repeating: 0, count: (count + count / 2) * rows)
            for (index, component) in components.enumerated() {
                // Sets without low bits, where codes mostly fit the symbols, are decoded on another way.
                let isPlain = index / 40 % 2 == 0
                if !isPlain { components[index].low_bits = UInt8.random(in: 0...10, using: &random) }
                for row in 0..<rows {
                    codes[Int(component.place) * rows + row] =
                        Int.random(in: 0..<(isPlain ? 100 : 2), using: &random) > 0
                        ? Int16.random(in: -3...3, using: &random) : Int16.random(in: -16_383...16_383, using: &random)
                }
            }
        }

        deinit { tables.deallocate() }

        func withChunk<R>(lanes: Int, _ body: (inout kv_rans_chunk) -> R) -> R {
            components.withUnsafeBufferPointer {
                var chunk = kv_rans_chunk(
                    tables: tables, components: $0.baseAddress, count: count, rows: rows, lanes: UInt32(lanes),
                    words: nil, word_count: 0)
                return body(&chunk)
            }
        }

        func encode(lanes: Int) -> [UInt16] {
            let room = 2 * (lanes + rows * count)
            var words = [UInt16](repeating: 0, count: room)
            return withChunk(lanes: lanes) { chunk in
                let taken = kv_rans_encode(&chunk, codes, &words, room)
                #expect(taken >= 2 * lanes)
                // The words it took suffice, and one fewer does not.
                var few = [UInt16](repeating: 0, count: taken)
                #expect(kv_rans_encode(&chunk, codes, &few, taken - 1) == 0)
                #expect(kv_rans_encode(&chunk, codes, &few, taken) == taken)
                return few
            }
        }

        /// The codes that a tier finds; nil where it refuses the words.
        func decode(_ words: [UInt16], lanes: Int, _ table: UnsafePointer<kv_kernels>) -> [Int16]? {
            var output = [Int16](repeating: 0, count: codes.count)
            var largest = [UInt16](repeating: 99, count: count + count / 2)
            // One byte further, as a section in a block may lie.
            let bytes: [UInt8] = [0] + words.withUnsafeBytes { Array($0) }
            let result = bytes.withUnsafeBufferPointer { bytes in
                withChunk(lanes: lanes) { chunk in
                    chunk.words = bytes.baseAddress! + 1
                    chunk.word_count = words.count
                    return table.pointee.rans.decode(&chunk, &output, &largest)
                }
            }
            guard result == 0 else { return nil }
            for component in components {
                let place = Int(component.place)
                #expect(largest[place] == output[place * rows..<(place + 1) * rows].map(\.magnitude).max() ?? 0)
            }
            return output
        }
    }

    @Test func chunksReturnEveryCode() {
        let seed: UInt64 = 78
        print("chunks: seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let shapes = [
            (0, 3, 8), (1, 1, 1), (5, 16, 8), (40, 64, 32), (33, 33, 32), (100, 1, 32), (100, 9, 7), (95, 17, 17),
            (64, 8, 16), (31, 60, 25), (3, 0, 2),
        ]
        for (count, rows, lanes) in shapes {
            let coded = Codes(count: count, rows: rows, random: &random)
            let words = coded.encode(lanes: lanes)
            for table in [kv_scalar()!] + vectors {
                #expect(coded.decode(words, lanes: lanes, table) == coded.codes, "\(count), \(rows), \(lanes)")
                // Cut anywhere or lengthened, and states that are not what they were, are noticed.
                for length in stride(from: 0, to: words.count, by: 1 + words.count / 50) {
                    #expect(coded.decode(Array(words[..<length]), lanes: lanes, table) == nil)
                }
                #expect(coded.decode(Array(words.dropLast()), lanes: lanes, table) == nil)
                #expect(coded.decode(words + [0], lanes: lanes, table) == nil)
                for lane in 0..<lanes {
                    var wrong = words
                    wrong[2 * lane + 1] ^= 0x8000
                    #expect(coded.decode(wrong, lanes: lanes, table) != coded.codes)
                }
                // Doubled codes, and those that leave 16 bits.
                for index in coded.components.indices { coded.components[index].doublings = 1 }
                let doubled = coded.codes.allSatisfy { abs(Int($0)) < 16_384 } ? coded.codes.map { $0 * 2 } : nil
                #expect(coded.decode(words, lanes: lanes, table) == doubled)
                for index in coded.components.indices { coded.components[index].doublings = 3 }
                if coded.codes.contains(where: { $0.magnitude >= 4096 }) {
                    #expect(coded.decode(words, lanes: lanes, table) == nil)
                }
                for index in coded.components.indices { coded.components[index].doublings = 0 }
            }
            // The predicted length is an upper bound but for rounding, and above the real one by what states hold.
            let cost = coded.components.reduce(UInt64(0)) { sum, component in
                let place = Int(component.place)
                return sum
                    + coded.codes[place * rows..<(place + 1) * rows].withUnsafeBufferPointer {
                        kv_cost(coded.tables + Int(component.table), $0.baseAddress, rows, UInt32(component.low_bits))
                    }
            }
            let (predicted, actual) = (Double(cost) / 512 + Double(4 * lanes), Double(2 * words.count))
            #expect(actual <= predicted * 1.01 + 2)
            #expect(actual >= predicted * 0.99 - Double(2 * lanes) - 2)
        }
    }

    @Test func everyTierCountsTheSameCost() {
        var random = SeededGenerator(seed: 79)
        for (count, rows) in [(10, 1), (10, 33), (50, 64)] {
            let coded = Codes(count: count, rows: rows, random: &random)
            for component in coded.components {
                coded.codes[Int(component.place) * rows..<(Int(component.place) + 1) * rows].withUnsafeBufferPointer {
                    let (table, shift) = (coded.tables + Int(component.table), UInt32(component.low_bits))
                    for tier in vectors {
                        #expect(
                            tier.pointee.rans.cost(table, $0.baseAddress, rows, shift)
                                == kv_scalar().pointee.rans.cost(table, $0.baseAddress, rows, shift))
                    }
                }
            }
        }
    }
}
