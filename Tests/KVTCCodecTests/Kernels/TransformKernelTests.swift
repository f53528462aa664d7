import CKernels
import KVTCCodec
import TestSupport
import Testing

@Suite struct TransformKernelTests {
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
        for bits in [7, 8] as [UInt32] {
            for table in [kv_scalar()!] + vectors where table.pointee.transform.digit_bits >= bits {
                check(tokens, tile, rows, codes, bits, table)
            }
        }
    }

    private func check(
        _ tokens: Int, _ tile: [UInt8], _ rows: [[Int8]], _ codes: [Int16], _ bits: UInt32,
        _ table: UnsafePointer<kv_kernels>
    ) {
        let line = Int(table.pointee.transform.line)
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
            let count = ((digits.count + 3) / 4 + line - 1) / line * line * 4
            // What is there before must not matter.
            var packed = [Int8](repeating: 77, count: count * tokens)
            var sums = [Int32](repeating: 0, count: tokens)
            components.withUnsafeBufferPointer { components in
                packed.withUnsafeMutableBufferPointer { quads in
                    sums.withUnsafeMutableBufferPointer { sums in
                        let target = kv_digits(
                            level: level, bits: bits, line: UInt32(line), quads: quads.baseAddress,
                            sums: sums.baseAddress)
                        kv_pack_codes(
                            codes, tokens, components.baseAddress! + digits.lowerBound, digits.count, target)
                    }
                }
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
                first: UInt32(part.1.lowerBound / 4), quads: UInt32((part.1.count + 3) / 4),
                scale: part.4 ? 0.25 : 0, shift: part.2, depth: part.3)
        }
        defer {
            for term in terms {
                term.codes.deallocate()
                term.sums.deallocate()
            }
        }
        let target = inverse(table, tile, terms, tokens: tokens)
        #expect(target == expected, "\(String(cString: table.pointee.name))")
    }

    private func inverse(
        _ table: UnsafePointer<kv_kernels>, _ tile: [UInt8], _ terms: [kv_term], tokens: Int
    ) -> [Float] {
        let columns = Int(KV_TILE)
        var target = [Float](repeating: 1, count: tokens * columns)
        // Any address will do: nothing is read.
        var ahead = kv_ahead(
            at: UnsafePointer(bitPattern: 0x10000), stride: 1024, next: 0, lines: UInt32(tile.count / 64))
        tile.withUnsafeBufferPointer { tile in
            terms.withUnsafeBufferPointer { terms in
                target.withUnsafeMutableBufferPointer { target in
                    withUnsafeMutablePointer(to: &ahead) { ahead in
                        for slab in stride(from: 0, to: tokens, by: 64) {
                            let count = min(64, tokens - slab)
                            // In two calls, as a page with wide tiles does.
                            for part in [0..<count / 2, count / 2..<count] {
                                var job = kv_inverse_job(
                                    tile: tile.baseAddress, quads: tile.count / 128, terms: terms.baseAddress,
                                    term_count: terms.count,
                                    slab: UInt32(slab / 64), tokens: UInt32(count), first: UInt32(part.lowerBound),
                                    count: UInt32(part.count),
                                    target: target.baseAddress! + (slab + part.lowerBound) * columns,
                                    stride: columns, ahead: ahead)
                                table.pointee.transform.inverse(&job)
                            }
                        }
                    }
                }
            }
        }
        return target
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
                    table.pointee.transform.turn($0.baseAddress! + quads * 128, quads, first, count, places, 2, &turned)
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
}

extension UnsafeBufferPointer where Element: BitwiseCopyable {
    /// A copy that the caller frees.
    fileprivate var copied: UnsafeMutablePointer<Element> {
        let copy = UnsafeMutablePointer<Element>.allocate(capacity: Swift.max(count, 1))
        if let baseAddress { copy.update(from: baseAddress, count: count) }
        return copy
    }
}
