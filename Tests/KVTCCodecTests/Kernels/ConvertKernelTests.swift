import CKernels
import KVTCCodec
import TestSupport
import Testing

@Suite struct ConvertKernelTests {
    @Test func everyHalfConvertsAlikeAndBack() {
        let halves = (0...65535).map { UInt16($0) }
        for table in [kv_scalar()!] + vectors {
            var floats = [Float](repeating: 0, count: halves.count)
            table.pointee.convert.to_float(KV_F16, halves, &floats, halves.count)
            for (half, value) in zip(halves, floats) {
                let exact = Float(Float16(bitPattern: half))
                #expect(value.bitPattern == exact.bitPattern || (value.isNaN && exact.isNaN))
            }
            var back = [UInt16](repeating: 0, count: halves.count)
            let clamped = table.pointee.convert.from_float(KV_F16, floats, &back, floats.count)
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
        _ = kv_scalar().pointee.convert.from_float(KV_F16, values, &scalar, values.count)
        #expect(scalar == values.map { Float16($0).bitPattern })
        for vector in vectors {
            var other = [UInt16](repeating: 0, count: values.count)
            _ = vector.pointee.convert.from_float(KV_F16, values, &other, values.count)
            #expect(other == scalar)
        }
    }

    @Test(arguments: [KV_BF16, KV_E4M3, KV_E5M2]) func smallFloatsComeBack(element: kv_element) {
        let width = element == KV_BF16 ? 2 : 1
        let count = width == 2 ? 65536 : 256
        let bits = (0..<count).flatMap { value in (0..<width).map { UInt8(value >> (8 * $0) & 255) } }
        var floats = [Float](repeating: 0, count: count)
        kv_scalar().pointee.convert.to_float(element, bits, &floats, count)
        var back = [UInt8](repeating: 0, count: bits.count)
        _ = kv_scalar().pointee.convert.from_float(element, floats, &back, count)
        for index in 0..<count where floats[index].isFinite {
            let range = index * width..<(index + 1) * width
            // −0 keeps its sign, so equality of bits is the right demand.
            #expect(bits[range] == back[range])
            let finite = bits[range].withUnsafeBytes { kv_all_finite(element, $0.baseAddress!, 1) }
            #expect(finite == 1)
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
}
