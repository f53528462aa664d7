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
        var stream = kv_stream(
            components: all, count: count, tokens: codedCount, words: words, word_count: wordCount,
            bits: words + 2 * wordCount, bits_length: bitBytes)
        let result = kernels.pointer.pointee.rans.decode(
            &stream, codes.reserve(count * codedCount), largest.reserve(count))
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
        let termLimit = planes * TermWriter.partsPerSum
        var writer = TermWriter(
            rows: rows, digitBits: kernels.digitBits, terms: terms.reserve(termLimit),
            quads: quads.reserve((room + termLimit * Basis.quad) * rows), sums: sums.reserve(termLimit * rows))
        for (index, basis) in profile.bases.enumerated() {
            let range = termRanges[index]
            guard PageDecoder.sumsFit(codes.base, range, rows: rows, largest: largest.base) else {
                throw .corrupt("codes too large")
            }
            let first = writer.count
            let basisCodes = UnsafePointer(codes.base) + range.lowerBound * rows
            let basisLargest = UnsafePointer(largest.base) + range.lowerBound
            for plane in basis.planes {
                let used = basis.used(plane, count: range.count, stepIndex: stepIndex ?? .min / 4)
                plane.components.withUnsafeBufferPointer { components in
                    let components = components.baseAddress!
                    writer.append(
                        digits: used, firstQuad: plane.firstQuad,
                        scale: Float(sign: .plus, exponent: plane.exponent, significand: 1) * step,
                        largest: { basisLargest[Int(components[$0])] },
                        pack: { range, digits in
                            kv_pack_codes(basisCodes, rows, components + range.lowerBound, range.count, digits)
                        })
                }
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

    /// Whether no row's absolute codes add up to 2^24: 32-bit sums of their products with int8 digits then hold.
    private static func sumsFit(
        _ codes: UnsafePointer<Int16>, _ components: Range<Int>, rows: Int, largest: UnsafePointer<UInt16>
    ) -> Bool {
        if components.reduce(0, { $0 + Int(largest[$1]) }) < TransformCoder.sumLimit { return true }
        return (0..<rows).allSatisfy { row in
            components.reduce(0) { $0 + Int(codes[$1 * rows + row].magnitude) } < TransformCoder.sumLimit
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
                    kernels: kernels, into: values)
                _ = kernels.fromFloat(
                    header.element, values.baseAddress!, rows + Int(codedTokens.base[index]) * rowBytes, width)
            }
        }
        swap(&exactBytes, &page)
        exactRows = UnsafePointer(rows)
        (exactCount, codedCount) = (header.tokens, 0)
    }
}
