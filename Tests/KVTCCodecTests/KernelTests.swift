import CKernels
import Foundation
import KVTCCodec
import TestSupport
import Testing

/// The tables of this machine beside the scalar one.
private var vectors: [UnsafePointer<kv_kernels>] { [kv_avx2(), kv_avx512()].compactMap(\.self) }

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

    @Test func inverseIsTheSameIntegerSumOnEveryTier() throws {
        var random = SeededGenerator(seed: 21)
        for (columns, digits, tokens) in [(64, 10, 7), (33, 6, 1), (100, 4, 29), (16, 2, 6)] {
            let rows = (0..<columns * digits).map { _ in Int8.random(in: -127...127, using: &random) }
            var packed = [Int8](repeating: 0, count: kv_packed_size(UInt32(columns), UInt32(digits)))
            kv_pack_basis(rows, UInt32(columns), 0, UInt32(digits), UInt32(digits), &packed)
            let codes = (0..<tokens * digits).map { _ in Int16.random(in: -16_383...16_383, using: &random) }
            var expected = [Float](repeating: 0, count: tokens * columns)
            for token in 0..<tokens {
                for column in 0..<columns {
                    var sum = 0
                    for digit in 0..<digits {
                        sum +=
                            Int(codes[(digit / 2 * tokens + token) * 2 + digit % 2])
                            * Int(rows[digit * columns + column])
                    }
                    expected[token * columns + column] = Float(sum) * 0.25
                }
            }
            for table in [kv_scalar()!] + vectors {
                var target = [Float](repeating: 0, count: tokens * columns)
                packed.withUnsafeBufferPointer {
                    table.pointee.inverse(
                        kv_basis(packed: $0.baseAddress, columns: UInt32(columns), digits: UInt32(digits)), 0,
                        UInt32(digits), codes, UInt32(tokens), 0, UInt32(columns), 0.25, &target, columns)
                }
                #expect(target == expected)
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
            let pointers = tables.map { UnsafePointer($0) as UnsafePointer<kv_table>? }
            var words = [UInt16](repeating: 0, count: codes.count + 64)
            var bits = [UInt8](repeating: 0, count: 2 * codes.count + 8)
            var bitCount = 0
            let count = kv_rans_encode(
                codes, components, tokens, pointers, shifts, &words, words.count, &bits, bits.count, &bitCount)
            #expect(count <= words.count)
            func decode(_ words: [UInt16], _ wordCount: Int, _ bitCount: Int) -> [Int16]? {
                var output = [Int16](repeating: 99, count: codes.count)
                let result = kv_rans_decode(
                    words, wordCount, bits, bitCount, components, tokens, pointers, shifts, &output)
                return result == 0 ? output : nil
            }
            #expect(decode(words, count, bitCount) == codes)
            // Cut or lengthened streams are noticed.
            #expect(decode(words, count - 1, bitCount) == nil)
            #expect(decode(words, count + 1, bitCount) == nil)
            if bitCount > 0 { #expect(decode(words, count, bitCount - 1) == nil) }
            // The predicted length is the real one but for the states and the rounding of the last words.
            let cost = (0..<components).reduce(UInt64(0)) { sum, component in
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
