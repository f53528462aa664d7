import CKernels

/// Writes the terms of integer sums one after another into memory that suffices: what is large takes several digits, what is
/// small lets more products pass before 16-bit sums are widened.
struct TermWriter {
    static let partsPerSum = Int(KV_MOST_PARTS)
    /// Values beyond ±8, ±16, ±32 halve the quads that 16-bit sums can take. Digits of 8 bits go to 32-bit sums at once.
    private static let depths: [(limit: UInt16, depth: UInt16)] = [(32, 1), (16, 2), (8, 4), (0, 8)]

    let rows: Int
    let kernels: KernelTable
    let terms: UnsafeMutablePointer<kv_term>
    var quads: UnsafeMutablePointer<Int8>
    var sums: UnsafeMutablePointer<Int32>
    var count = 0

    init(
        rows: Int, kernels: KernelTable, terms: UnsafeMutablePointer<kv_term>, quads: UnsafeMutablePointer<Int8>,
        sums: UnsafeMutablePointer<Int32>
    ) {
        (self.rows, self.kernels) = (rows, kernels)
        (self.terms, self.quads, self.sums) = (terms, quads, sums)
    }

    /// One sum over `digits` digits of a tile, the large values first.
    /// - Parameters:
    ///   - largest: magnitude of the values that meet a digit.
    ///   - pack: writes a range's digits of one level, and each row's sum of them.
    mutating func append(
        digits used: Int, firstQuad: Int, scale: Float, largest: (Int) -> UInt16,
        pack: (Range<Int>, kv_digits) -> Void
    ) {
        guard used > 0 else { return }
        let (digitBits, line) = (kernels.digitBits, kernels.line)
        // Digits from here on meet values up to `limit`, in whole quads.
        func end(of limit: UInt16) -> Int {
            var end = used
            while end > 0, largest(end - 1) <= limit { end -= 1 }
            return min(used, (end + Basis.quad - 1) / Basis.quad * Basis.quad)
        }
        func part(_ digits: Range<Int>, level: UInt32, shift: Int, depth: UInt16, scale: Float) {
            let quadCount = (digits.count + Basis.quad - 1) / Basis.quad
            pack(
                digits,
                kv_digits(level: level, bits: UInt32(digitBits), line: UInt32(line), quads: quads, sums: sums))
            terms[count] = kv_term(
                codes: quads, sums: sums, first: UInt32(firstQuad + digits.lowerBound / Basis.quad),
                quads: UInt32(quadCount), scale: scale, shift: UInt16(shift), depth: depth)
            count += 1
            quads += (quadCount + line - 1) / line * line * Basis.quad * rows
            sums += rows
        }
        // −64…63 fit one digit of 7 bits, −8256…8127 fit two.
        let one = 1 << (digitBits - 1) - 1
        let (two, three) = (end(of: UInt16(one)), end(of: UInt16(one * (1 << digitBits + 1))))
        if three > 0 { part(0..<three, level: 2, shift: 0, depth: 1, scale: 0) }
        if two > 0 { part(0..<two, level: 1, shift: three > 0 ? digitBits : 0, depth: 1, scale: 0) }
        var begin = 0
        for (limit, depth) in TermWriter.depths.suffix(digitBits < 8 ? 4 : 1) where begin < used {
            let end = limit == 0 ? used : max(two, end(of: limit))
            guard end > begin else { continue }
            part(
                begin..<end, level: 0, shift: begin == 0 && two > 0 ? digitBits : 0, depth: depth,
                scale: end == used ? scale : 0)
            begin = end
        }
    }
}
