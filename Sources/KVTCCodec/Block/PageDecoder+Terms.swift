import CKernels
import KVTCModel

extension PageDecoder {
    /// Makes codes into the terms of the inverse transform: for each plane of digits what its sum takes, large codes as
    /// several digits of base 128.
    func arrange(_ profile: Profile, step: Float, firstPosition: Int) throws(CodecError) {
        let (rows, codes, largest) = (page.codedCount, page.codes.base, page.largest.base)
        var (room, planes) = (0, 0)
        for basis in profile.bases {
            room += 3 * Basis.quad * basis.quads
            planes += basis.planes.count
        }
        // Two high digits and the lowest one in four parts, each rounded up to a quad.
        let termLimit = planes * TermWriter.partsPerSum
        var writer = TermWriter(
            rows: rows, kernels: kernels, terms: terms.reserve(termLimit),
            quads: quads.reserve((room + termLimit * kernels.line * Basis.quad) * rows),
            sums: sums.reserve(termLimit * rows))
        for (index, basis) in profile.bases.enumerated() {
            let range = page.components[index]
            guard PageDecoder.sumsFit(codes, range, rows: rows, largest: largest) else {
                throw .corrupt("codes too large")
            }
            let first = writer.count
            let basisCodes = UnsafePointer(codes) + range.lowerBound * rows
            let basisLargest = UnsafePointer(largest) + range.lowerBound
            for plane in basis.planes {
                let used = basis.used(plane, count: range.count, stepIndex: page.stepIndex ?? .min / 4)
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
                position: firstPosition + Int(page.codedTokens.base[row]),
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
}
