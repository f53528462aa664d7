import CKernels

extension PageDecoder {
    private var codedProfile: Profile {
        get throws(CodecError) {
            guard let profile else {
                throw .unsupported("this mode needs a profile; calibrate one, or use lossless")
            }
            return profile
        }
    }

    /// Reads a `transform` section (see ``TransformCoder``) into `codes`, [component][row], basis after basis.
    /// - Returns: the step index.
    package func decodeSymbols(_ section: UnsafeRawBufferPointer, step: Float) throws(CodecError) -> Int {
        let profile = try codedProfile
        let coder = TransformCoder(profile: profile, kernels: kernels)
        guard section.count >= 12 else { throw .corrupt("coded section of \(section.count) bytes") }
        func word(_ offset: Int) -> Int {
            Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        }
        let stepIndex = Int(Int16(littleEndian: section.loadUnaligned(as: Int16.self)))
        let (wordCount, bitBytes) = (word(4), word(8))
        var offset = 12
        var count = 0
        active = 0
        let all = components.reserve(profile.bases.reduce(0) { $0 + $1.rank })
        for (index, basis) in profile.bases.enumerated() {
            guard section.count - offset >= 4 else { throw .corrupt("allocation passes the end") }
            let rank = word(offset)
            offset += 4
            let groups = (rank + TransformCoder.group - 1) / TransformCoder.group
            guard rank <= basis.rank, groups <= section.count - offset else { throw .corrupt("rank \(rank)") }
            termRanges[index] = count..<count + rank
            for component in 0..<rank {
                let option = section[offset + component / TransformCoder.group]
                guard option == TransformCoder.cutGroup || option <= 0x7F else { throw .corrupt("group options") }
                all[count] = coder.component(level: basis.levels[component], option: option, stepIndex: stepIndex)
                if all[count].table != nil { active += 1 }
                count += 1
            }
            offset += groups
        }
        guard section.count - offset == 2 * wordCount + bitBytes, step.isFinite, step > 0 else {
            throw .corrupt("coded section does not add up")
        }
        rank = count
        let words = section.bindMemory(to: UInt8.self).baseAddress! + offset
        let result = kernels.pointer.pointee.rans_decode(
            words, wordCount, words + 2 * wordCount, bitBytes, all, count, codedCount,
            codes.reserve(count * codedCount),
            largest.reserve(count))
        guard result == 0 else { throw .corrupt("entropy-coded stream") }
        return stepIndex
    }

    /// The codes of a `kvtc` section (see ``KVTCCoder``), likewise.
    func decodePublished(_ section: UnsafeRawBufferPointer, step: Float) throws(CodecError) {
        let profile = try codedProfile
        let bases = try KVTCCoder(profile: profile, kernels: kernels).decode(section, rows: codedCount, step: step)
        let count = bases.reduce(0) { $0 + $1.count / codedCount }
        let (target, top) = (codes.reserve(count * codedCount), largest.reserve(count))
        var next = 0
        for (index, basis) in bases.enumerated() {
            let first = next
            for start in stride(from: 0, to: basis.count, by: codedCount) {
                top[next] = 0
                for row in 0..<codedCount {
                    target[next * codedCount + row] = basis[start + row]
                    top[next] = max(top[next], basis[start + row].magnitude)
                }
                next += 1
            }
            termRanges[index] = first..<next
        }
    }

    /// Makes `codes` into the terms of the inverse transform: for each plane of digits what its sum takes, large codes as
    /// several digits of base 128.
    /// - Parameter stepIndex: nil: all second digits take part.
    package func arrange(step: Float, stepIndex: Int?) throws(CodecError) {
        guard codedCount > 0 else { return }
        let profile = try codedProfile
        let rows = codedCount
        var (room, planes) = (0, 0)
        for basis in profile.bases {
            room += 3 * Basis.quad * basis.quads
            planes += basis.planes.count
        }
        // Two high digits and the lowest one in four parts, each rounded up to a quad.
        let termLimit = planes * TermWriter.partsPerPlane
        var writer = TermWriter(
            codes: UnsafePointer(codes.base), rows: rows, terms: terms.reserve(termLimit),
            quads: quads.reserve((room + termLimit * Basis.quad) * rows), sums: sums.reserve(termLimit * rows))
        for (index, basis) in profile.bases.enumerated() {
            let range = termRanges[index]
            guard TermWriter.sumsFit(codes.base, range, rows: rows, largest: largest.base) else {
                throw .corrupt("codes too large")
            }
            let first = writer.count
            writer.codes = UnsafePointer(codes.base) + range.lowerBound * rows
            for plane in basis.planes {
                let used = basis.used(plane, count: range.count, stepIndex: stepIndex ?? .min / 4)
                writer.append(
                    plane, used: used, largest: UnsafePointer(largest.base) + range.lowerBound,
                    scale: Float(sign: .plus, exponent: plane.exponent, significand: 1) * step)
            }
            termRanges[index] = first..<writer.count
        }
        let table = angles.reserve(rows * profile.rotation.angleCount)
        for row in 0..<rows {
            profile.rotation.angles(
                position: (header?.firstPosition ?? 0) + Int(codedTokens.base[row]),
                into: table + row * profile.rotation.angleCount)
        }
    }

    /// Restores the rows of an integer-quantised section and counts all rows as exact.
    func dequantise(_ section: UnsafeRawBufferPointer, _ header: BlockHeader) throws(CodecError) {
        let bits = header.mode == .quant8 ? 8 : 4
        let width = geometry.rowElements
        let coded = IntegerQuantiser.rowBytes(elements: width, bits: bits)
        guard section.count == coded * codedCount else { throw .corrupt("coded section of \(section.count) bytes") }
        let rowBytes = width * header.element.bytes
        var page = Scratch<UInt8>()
        let rows = page.reserve(header.rawBytes)
        for index in 0..<exactCount {
            (rows + Int(exactTokens.base[index]) * rowBytes).update(
                from: exactRows! + index * rowBytes, count: rowBytes)
        }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { values in
            for index in 0..<codedCount {
                IntegerQuantiser.decode(
                    UnsafeRawBufferPointer(rebasing: section[index * coded..<(index + 1) * coded]), bits: bits,
                    kernels: kernels.pointer.pointee, into: values)
                _ = kernels.fromFloat(
                    header.element, values.baseAddress!, rows + Int(codedTokens.base[index]) * rowBytes, width)
            }
        }
        swap(&exactBytes, &page)
        exactRows = UnsafePointer(rows)
        (exactCount, codedCount) = (header.tokens, 0)
    }
}

/// Writes the terms of one page one after another into memory that suffices.
struct TermWriter {
    static let partsPerPlane = 6
    /// Codes beyond ±8, ±16, ±32 halve the quads that 16-bit sums can take.
    private static let depths: [(limit: UInt16, depth: UInt16)] = [(32, 1), (16, 2), (8, 4), (0, 8)]

    var codes: UnsafePointer<Int16>
    let rows: Int
    let terms: UnsafeMutablePointer<kv_term>
    var quads: UnsafeMutablePointer<Int8>
    var sums: UnsafeMutablePointer<Int32>
    var count = 0

    init(
        codes: UnsafePointer<Int16>, rows: Int, terms: UnsafeMutablePointer<kv_term>, quads: UnsafeMutablePointer<Int8>,
        sums: UnsafeMutablePointer<Int32>
    ) {
        (self.codes, self.rows, self.terms, self.quads, self.sums) = (codes, rows, terms, quads, sums)
    }

    /// Whether no row's absolute codes add up to 2^24: 32-bit sums of their products with int8 digits then hold.
    static func sumsFit(
        _ codes: UnsafePointer<Int16>, _ components: Range<Int>, rows: Int, largest: UnsafePointer<UInt16>
    ) -> Bool {
        if components.reduce(0, { $0 + Int(largest[$1]) }) < TransformCoder.sumLimit { return true }
        return (0..<rows).allSatisfy { row in
            components.reduce(0) { $0 + Int(codes[$1 * rows + row].magnitude) } < TransformCoder.sumLimit
        }
    }

    /// One plane's first `used` digits. `largest`: magnitude of each component's codes.
    mutating func append(_ plane: Basis.Plane, used: Int, largest: UnsafePointer<UInt16>, scale: Float) {
        guard used > 0 else { return }
        plane.components.withUnsafeBufferPointer { components in
            // Digits from here on have codes up to `limit`; as levels descend, those before are few.
            func end(of limit: UInt16) -> Int {
                var end = used
                while end > 0, largest[Int(components[end - 1])] <= limit { end -= 1 }
                return min(used, (end + Basis.quad - 1) / Basis.quad * Basis.quad)
            }
            let components = components.baseAddress!
            // −64…63 in one digit, −8256…8127 in two.
            let (two, three) = (end(of: 63), end(of: 8127))
            if three > 0 { part(plane, components, 0..<three, level: 2, shift: 0, depth: 1, scale: 0) }
            if two > 0 { part(plane, components, 0..<two, level: 1, shift: three > 0 ? 7 : 0, depth: 1, scale: 0) }
            var begin = 0
            for (limit, depth) in TermWriter.depths {
                let end = limit == 0 ? used : max(two, end(of: limit))
                guard end > begin else { continue }
                part(
                    plane, components, begin..<end, level: 0, shift: begin == 0 && two > 0 ? 7 : 0, depth: depth,
                    scale: end == used ? scale : 0)
                begin = end
                if end == used { break }
            }
        }
    }

    private mutating func part(
        _ plane: Basis.Plane, _ components: UnsafePointer<Int32>, _ digits: Range<Int>, level: UInt32, shift: UInt16,
        depth: UInt16, scale: Float
    ) {
        let quadCount = (digits.count + Basis.quad - 1) / Basis.quad
        kv_pack_codes(codes, rows, components + digits.lowerBound, digits.count, level, quads, sums)
        terms[count] = kv_term(
            codes: quads, sums: sums, first: UInt32(plane.firstQuad + digits.lowerBound / Basis.quad),
            quads: UInt32(quadCount), scale: scale, shift: shift, depth: depth)
        count += 1
        quads += quadCount * Basis.quad * rows
        sums += rows
    }
}
