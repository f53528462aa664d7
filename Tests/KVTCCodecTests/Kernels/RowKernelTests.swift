import CKernels
import Foundation
import KVTCCodec
import TestSupport
import Testing

@Suite struct RowKernelTests {
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
                    table.pointee.rows.scale_offset(&values, scale, offset, count)
                    withUnsafePointer(to: rotation) { table.pointee.rows.rotate(&values, $0, 1, angles, direction) }
                    return values
                }
                for direction in [1, -1] as [Int32] {
                    let expected = run(kv_scalar(), direction)
                    for table in vectors { #expect(run(table, direction) == expected) }
                }
                var turned = run(kv_scalar(), 1)
                withUnsafePointer(to: rotation) { kv_scalar().pointee.rows.rotate(&turned, $0, 1, angles, -1) }
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
                    table.pointee.rows.multiply(&rows, count, stride, matrix, width)
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
}
