import CKernels
import Foundation
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// The tables of this machine beside the scalar one.
private var vectors: [UnsafePointer<kv_kernels>] { [kv_avx2(), kv_avx512(), kv_neon()].compactMap(\.self) }

@Suite struct KernelTests {
    @Test func everyHalfConvertsAlikeAndBack() {
        let halves = (0...65535).map { UInt16($0) }
        for table in [kv_scalar()!] + vectors {
            var floats = [Float](repeating: 0, count: halves.count)
            table.pointee.to_float(KV_F16, halves, &floats, halves.count)
            for (half, value) in zip(halves, floats) {
                let exact = Float(Float16(bitPattern: half))
                #expect(value.bitPattern == exact.bitPattern || (value.isNaN && exact.isNaN))
            }
            var back = [UInt16](repeating: 0, count: halves.count)
            let clamped = table.pointee.from_float(KV_F16, floats, &back, floats.count)
            #expect(clamped == 2048)
            for (half, again) in zip(halves, back) where half & 0x7C00 != 0x7C00 { #expect(half == again) }
        }
    }

    @Test func roundingMatchesTheStandardLibrary() {
        var random = SeededGenerator(seed: 9)
        let values = (0..<20_000).map { _ in
            Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &random) & 0xC7FF_FFFF | 0x2000_0000)
        }.filter { abs($0) <= 65504 }
        var scalar = [UInt16](repeating: 0, count: values.count)
        _ = kv_scalar().pointee.from_float(KV_F16, values, &scalar, values.count)
        #expect(scalar == values.map { Float16($0).bitPattern })
        for vector in vectors {
            var other = [UInt16](repeating: 0, count: values.count)
            _ = vector.pointee.from_float(KV_F16, values, &other, values.count)
            #expect(other == scalar)
        }
    }

    @Test(arguments: [KV_BF16, KV_E4M3, KV_E5M2]) func smallFloatsComeBack(element: kv_element) {
        let width = element == KV_BF16 ? 2 : 1
        let count = width == 2 ? 65536 : 256
        let bits = (0..<count).flatMap { value in (0..<width).map { UInt8(value >> (8 * $0) & 255) } }
        var floats = [Float](repeating: 0, count: count)
        kv_scalar().pointee.to_float(element, bits, &floats, count)
        var back = [UInt8](repeating: 0, count: bits.count)
        _ = kv_scalar().pointee.from_float(element, floats, &back, count)
        for index in 0..<count where floats[index].isFinite {
            let range = index * width..<(index + 1) * width
            // −0 keeps its sign, so equality of bits is the right demand.
            #expect(bits[range] == back[range])
            let finite = bits[range].withUnsafeBytes { kv_all_finite(element, $0.baseAddress!, 1) }
            #expect(finite == 1)
        }
    }

    /// Sums of several terms, among them shifted ones and the largest that 16 bits take, at every number of tokens.
    @Test(arguments: [1, 2, 3, 5, 11, 12, 23, 64, 65, 130]) func inverseIsTheSameIntegerSumOnEveryTier(tokens: Int) {
        let seed = UInt64(21 + tokens)
        print("inverse: seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let quads = 40
        let columns = Int(KV_TILE)
        let rows = (0..<4 * quads).map { _ in
            (0..<columns).map { _ in
                Int8.random(in: Bool.random(using: &random) ? 127...127 : -128...127, using: &random)
            }
        }
        var tile = [UInt8](repeating: 128, count: kv_packed_size(columns, quads))
        for (digit, row) in rows.enumerated() { kv_pack_digit(row, columns, quads, digit, &tile) }
        // Digits 0…159; the codes of the first 48 need three digits, of the next 48 two, of the others one.
        var codes = (0..<4 * quads * tokens).map { cell -> Int16 in
            let limit: Int16 = [.max, 8000, 8][min(cell / tokens / 48, 2)]
            return Bool.random(using: &random) ? limit : Int16.random(in: -limit...limit, using: &random)
        }
        codes[0] = .min
        for bits in [7, 8] as [UInt32] { check(tokens, tile, rows, codes, bits) }
    }

    private func check(_ tokens: Int, _ tile: [UInt8], _ rows: [[Int8]], _ codes: [Int16], _ bits: UInt32) {
        let columns = Int(KV_TILE)
        let components = rows.indices.map(Int32.init)
        // (level, digits, shift, depth, ends a sum)
        let shift = UInt16(bits)
        let parts: [(UInt32, Range<Int>, UInt16, UInt16, Bool)] = [
            (2, 0..<48, 0, 1, false), (1, 0..<96, shift, 1, false), (0, 0..<96, shift, 1, false),
            (0, 96..<130, 0, 8, true), (0, 132..<159, 0, 4, true),
        ]
        var storage: [(quads: [Int8], sums: [Int32])] = []
        for (level, digits, _, _, _) in parts {
            let count = (digits.count + 3) / 4 * 4
            var packed = [Int8](repeating: 0, count: count * tokens)
            var sums = [Int32](repeating: 0, count: tokens)
            components.withUnsafeBufferPointer {
                kv_pack_codes(
                    codes, tokens, $0.baseAddress! + digits.lowerBound, digits.count, level, bits, &packed, &sums)
            }
            storage.append((packed, sums))
        }
        var expected = [Float](repeating: 1, count: tokens * columns)
        for token in 0..<tokens {
            for column in 0..<columns {
                for digits in [0..<130, 132..<159] {
                    let sum = digits.reduce(0) { $0 + Int(codes[$1 * tokens + token]) * Int(rows[$1][column]) }
                    expected[token * columns + column] += Float(sum) * 0.25
                }
            }
        }
        let terms = zip(parts, storage).map { part, memory in
            kv_term(
                codes: memory.quads.withUnsafeBufferPointer { UnsafePointer($0.copied) },
                sums: memory.sums.withUnsafeBufferPointer { UnsafePointer($0.copied) },
                first: UInt32(part.1.lowerBound / 4), quads: UInt32(memory.quads.count / tokens / 4),
                scale: part.4 ? 0.25 : 0, shift: part.2, depth: part.3)
        }
        defer {
            for term in terms {
                term.codes.deallocate()
                term.sums.deallocate()
            }
        }
        for table in [kv_scalar()!] + vectors where table.pointee.digit_bits >= bits {
            var target = [Float](repeating: 1, count: tokens * columns)
            // Any address will do: nothing is read.
            var ahead = kv_ahead(
                at: UnsafePointer(bitPattern: 0x10000), stride: 1024, next: 0, lines: UInt32(tile.count / 64))
            for slab in stride(from: 0, to: tokens, by: 64) {
                let count = min(64, tokens - slab)
                // In two calls, as a page with wide tiles does.
                for part in [0..<count / 2, count / 2..<count] {
                    target.withUnsafeMutableBufferPointer {
                        table.pointee.inverse(
                            tile, terms, terms.count, UInt32(slab / 64), UInt32(count), UInt32(part.lowerBound),
                            UInt32(part.count), $0.baseAddress! + (slab + part.lowerBound) * columns, columns, &ahead)
                    }
                }
            }
            #expect(target == expected, "\(String(cString: table.pointee.name))")
        }
    }

    @Test func turnedTilesAreTheSameOnEveryTier() {
        var random = SeededGenerator(seed: 5)
        let (columns, quads) = (100, 19)
        let packed = (0..<kv_packed_size(columns, quads)).map { _ in UInt8.random(in: 0...255, using: &random) }
        for (first, count) in [(0, 8), (8, 8), (16, 3), (18, 1)] {
            // The second tile and the third, in some order.
            let places = (0..<UInt32(16)).shuffled(using: &random)
            func turn(_ table: UnsafePointer<kv_kernels>) -> [UInt8] {
                var turned = [UInt8](repeating: 7, count: places.count * 128)
                packed.withUnsafeBufferPointer {
                    table.pointee.turn($0.baseAddress! + quads * 128, quads, first, count, places, 2, &turned)
                }
                return turned
            }
            let expected = turn(kv_scalar())
            for (quad, place) in places.enumerated() {
                for (digit, column) in (0..<32).flatMap({ digit in (0..<4).map { (digit, $0) } }) {
                    let source = 32 + quad * 4 + column
                    let at = ((source / 32 * quads + first + digit / 4) * 32 + source % 32) * 4 + digit % 4
                    #expect(expected[(Int(place) * 32 + digit) * 4 + column] == (digit < 4 * count ? packed[at] : 128))
                }
            }
            for table in vectors { #expect(turn(table) == expected) }
        }
    }

    @Test func copiesPastTheCachesEndWhereTheyShould() {
        let source = (0..<400).map { UInt8(truncatingIfNeeded: 7 * $0 + 1) }
        for (offset, count) in [(0, 0), (1, 0), (0, 64), (1, 62), (1, 63), (63, 65), (17, 256), (64, 300)] {
            var target = [UInt8](repeating: 0, count: 400)
            target.withUnsafeMutableBufferPointer { target in
                kv_copy_past_caches(target.baseAddress! + offset, source, count)
            }
            let expected = [UInt8](repeating: 0, count: offset) + source[..<count]
            #expect(target == expected + [UInt8](repeating: 0, count: 400 - expected.count), "\(offset), \(count)")
        }
    }

    @Test func scalingAndRotationGiveTheSameBitsOnEveryTier() {
        let seed: UInt64 = 31
        print("rotation: seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for pairs in [1, 3, 4, 8, 13, 32, 64] {
            for isSplit in [true, false] {
                let count = 2 * pairs + 3
                let frequencies = (0..<pairs).map { _ in Float.random(in: 0...1, using: &random) }
                var angles = [Float](repeating: 0, count: 2 * pairs + 2)
                kv_rotation_table(777, frequencies, pairs, &angles[2])
                let rotation = kv_rotation(
                    first: 1, pairs: UInt32(pairs), step: isSplit ? 1 : 2, partner: isSplit ? UInt32(pairs) : 1,
                    angle: 2)
                func row() -> [Float] { (0..<count).map { _ in Float.random(in: -1e3...1e3, using: &random) } }
                let (start, scale, offset) = (row(), row(), row())
                func run(_ table: UnsafePointer<kv_kernels>, _ direction: Int32) -> [Float] {
                    var values = start
                    table.pointee.scale_offset(&values, scale, offset, count)
                    withUnsafePointer(to: rotation) { table.pointee.rotate(&values, $0, 1, angles, direction) }
                    return values
                }
                for direction in [1, -1] as [Int32] {
                    let expected = run(kv_scalar(), direction)
                    for table in vectors { #expect(run(table, direction) == expected) }
                }
                var turned = run(kv_scalar(), 1)
                withUnsafePointer(to: rotation) { kv_scalar().pointee.rotate(&turned, $0, 1, angles, -1) }
                let plain = zip(zip(start, scale), offset).map { $0.0 * $0.1 + $1 }
                #expect(zip(turned, plain).allSatisfy { abs($0 - $1) <= 1e-5 * 2e6 })
            }
        }
    }

    @Test func matricesGiveTheSameBitsOnEveryTier() {
        let seed: UInt64 = 33
        print("matrices: seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for width in [1, 3, 15, 16, 17, 64, 80, 128, 255, 256] {
            for count in [1, 2, 4, 5, 12] {
                let stride = width + 7
                let start = (0..<count * stride).map { _ in random.normal() }
                let matrix = (0..<width * width).map { _ in random.normal() }
                func run(_ table: UnsafePointer<kv_kernels>) -> [Float] {
                    var rows = start
                    table.pointee.multiply(&rows, count, stride, matrix, width)
                    return rows
                }
                let expected = run(kv_scalar())
                for table in vectors { #expect(run(table) == expected) }
                for row in 0..<count {
                    for column in 0..<stride {
                        let at = row * stride + column
                        guard column < width else {
                            #expect(expected[at] == start[at])
                            continue
                        }
                        let exact = (0..<width).reduce(0.0) {
                            $0 + Double(start[row * stride + $1]) * Double(matrix[$1 * width + column])
                        }
                        #expect(abs(Double(expected[at]) - exact) <= 1e-4 * Double(width))
                    }
                }
            }
        }
    }

    @Test func rotationMatchesTheLibraryAndUndoesItself() {
        let frequencies = (0..<32).map { Float(pow(100_000, -2 * Double($0) / 64)) }
        for position in [0, 1, 2047, 131_071, 999_999] as [UInt32] {
            var table = [Float](repeating: 0, count: 64)
            kv_rotation_table(position, frequencies, 32, &table)
            for (pair, frequency) in frequencies.enumerated() {
                let angle = Double(position) * Double(frequency)
                #expect(abs(Double(table[2 * pair]) - cos(angle)) < 1e-7)
                #expect(abs(Double(table[2 * pair + 1]) - sin(angle)) < 1e-7)
            }
        }
    }

    @Test func entropyCoderReturnsEveryCode() {
        let seed: UInt64 = 77
        print("entropy coder: seed \(seed)")
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
            var bitCount = 0
            let count = kv_rans_encode(
                coded, parts, components, tokens, &words, words.count, &bits, bits.count, &bitCount)
            #expect(count <= words.count)
            for table in [kv_scalar()!] + vectors {
                func decode(_ words: [UInt16], _ wordCount: Int, _ bitCount: Int) -> [Int16]? {
                    var output = [Int16](repeating: 99, count: codes.count)
                    var largest = [UInt16](repeating: 99, count: components)
                    // One byte further, as a section in a block may lie.
                    let stream: [UInt8] = [0] + words.prefix(wordCount).withUnsafeBytes { Array($0) }
                    let result = stream.withUnsafeBufferPointer {
                        table.pointee.rans_decode(
                            $0.baseAddress! + 1, ($0.count - 1) / 2, bits, bitCount, parts, components, tokens, &output,
                            &largest)
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
            for table in vectors {
                for component in 0..<components {
                    codes[component * tokens..<(component + 1) * tokens].withUnsafeBufferPointer {
                        let shift = UInt32(shifts[component])
                        #expect(
                            table.pointee.cost(tables[component], $0.baseAddress, tokens, shift)
                                == kv_scalar().pointee.cost(tables[component], $0.baseAddress, tokens, shift))
                    }
                }
            }
            // The predicted length is the real one but for the states and the rounding of the last words.
            let cost = parts.indices.filter { parts[$0].table != nil }.reduce(UInt64(0)) { sum, component in
                sum
                    + codes[component * tokens..<(component + 1) * tokens].withUnsafeBufferPointer {
                        kv_cost(tables[component], $0.baseAddress, tokens, UInt32(shifts[component]))
                    }
            }
            let predicted = Double(cost) / 512
            let actual = Double(2 * count + bitCount - 64)
            #expect(abs(actual - predicted) <= predicted * 0.02 + 40)
        }
    }
}

extension UnsafeBufferPointer where Element: BitwiseCopyable {
    /// A copy that the caller frees.
    fileprivate var copied: UnsafeMutablePointer<Element> {
        let copy = UnsafeMutablePointer<Element>.allocate(capacity: Swift.max(count, 1))
        if let baseAddress { copy.update(from: baseAddress, count: count) }
        return copy
    }
}
