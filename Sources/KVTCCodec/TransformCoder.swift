import CKernels
import FoundationEssentials
import Glibc

/// The `transform` mode: weighted, centred rows on the profile's basis, one quantiser step, rANS with shared tables.
///
/// Section: i16 step index, u16 0, u32 rANS words, u32 raw-bit bytes, then for each basis u32 rank and
/// ⌈rank / 64⌉ bytes of group options (0xFF: the group is cut; else the log2 of its step multiplier), then the words and bits.
struct TransformCoder {
    static let group = 64
    /// Codes beyond this are not coded: their row is protected instead.
    static let codeLimit = 16_383
    /// Largest sum of a row's absolute codes, exclusive.
    static let sumLimit = 1 << 24
    static let cutGroup: UInt8 = 0xFF

    let profile: Profile
    let kernels: KernelTable

    /// Step of an index: 2^(index / 64).
    static func step(_ index: Int) -> Float { Float(exp2(Double(index) / 64)) }

    /// Bytes of a section beside the entropy-coded bits: header, allocation, rANS states, rounding.
    static func fixedBytes(ranks: [Int]) -> Int {
        12 + ranks.reduce(0) { $0 + 4 + ($1 + group - 1) / group } + 4 * KV_LANES + 2
    }

    /// What the decoder needs to know of each basis.
    struct Kept {
        /// Components kept of each basis.
        var ranks: [Int]
        /// Option of each group of 64 components, basis by basis.
        var options: [[UInt8]]
    }

    /// Rows, by index, with a code at the limit or with codes whose sum the decoder's integers can't take.
    func wildRows(_ codes: [[Int16]], rows: Int) -> [Int] {
        var sums = [Int](repeating: 0, count: rows)
        for basis in codes {
            for (index, code) in basis.enumerated() {
                sums[index % rows] +=
                    abs(Int(code)) >= TransformCoder.codeLimit ? TransformCoder.sumLimit : abs(Int(code))
            }
        }
        return sums.indices.filter { sums[$0] >= TransformCoder.sumLimit }
    }

    // MARK: - Section

    func assemble(stepIndex: Int, allocation: Kept, codes: [[Int16]], rows: Int) -> [UInt8] {
        let (flat, tables, shifts) = components(stepIndex: stepIndex, allocation: allocation, codes: codes, rows: rows)
        var words = [UInt16](repeating: 0, count: flat.count + 64)
        var bits = [UInt8](repeating: 0, count: 2 * flat.count + 8)
        var bitBytes = 0
        let wordCount = kv_rans_encode(
            flat, tables.count, rows, tables, shifts, &words, words.count, &bits, bits.count, &bitBytes)
        precondition(wordCount != Int.max && wordCount <= words.count, "rANS output passes its bound")
        var section: [UInt8] = []
        func append<T: FixedWidthInteger>(_ value: T) {
            withUnsafeBytes(of: value.littleEndian) { section.append(contentsOf: $0) }
        }
        append(Int16(stepIndex))
        append(UInt16(0))
        append(UInt32(wordCount))
        append(UInt32(bitBytes))
        for (rank, options) in zip(allocation.ranks, allocation.options) {
            append(UInt32(rank))
            section += options
        }
        words[..<wordCount].withUnsafeBytes { section.append(contentsOf: $0) }
        section += bits[..<bitBytes]
        return section
    }

    /// The kept components of all bases one after another, with the table and raw bits of each.
    private func components(
        stepIndex: Int, allocation: Kept, codes: [[Int16]], rows: Int
    ) -> (codes: [Int16], tables: [UnsafePointer<kv_table>?], shifts: [UInt8]) {
        var flat: [Int16] = []
        var tables: [UnsafePointer<kv_table>?] = []
        var shifts: [UInt8] = []
        for (index, basis) in profile.bases.enumerated() {
            for component in 0..<allocation.ranks[index] {
                let option = allocation.options[index][component / TransformCoder.group]
                guard option != TransformCoder.cutGroup else { continue }
                let entropyClass = EntropyTables.classOf(
                    level: basis.levels[component], stepIndex: stepIndex + 64 * Int(option))
                tables.append(profile.tables.table(entropyClass))
                shifts.append(UInt8(EntropyTables.shift(class: entropyClass)))
                if !codes.isEmpty { flat += codes[index][component * rows..<(component + 1) * rows] }
            }
        }
        return (flat, tables, shifts)
    }

    /// Decodes the columns `spans` of the coded rows: [rows][rowElements] weighted, centred floats.
    func decode(
        _ section: UnsafeRawBufferPointer, rows: Int, step: Float, spans: [Range<Int>]
    ) throws(CodecError) -> [Float] {
        guard section.count >= 12 else { throw .corrupt("coded section of \(section.count) bytes") }
        let stepIndex = Int(Int16(littleEndian: section.loadUnaligned(as: Int16.self)))
        let wordCount = Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
        let bitBytes = Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: 8, as: UInt32.self)))
        var offset = 12
        var allocation = Kept(ranks: [], options: [])
        for basis in profile.bases {
            guard section.count - offset >= 4 else { throw .corrupt("allocation passes the end") }
            let rank = Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
            offset += 4
            let groups = (rank + TransformCoder.group - 1) / TransformCoder.group
            guard rank <= basis.rank, groups <= section.count - offset else { throw .corrupt("rank \(rank)") }
            let options = [UInt8](section[offset..<offset + groups])
            guard options.allSatisfy({ $0 == TransformCoder.cutGroup || $0 <= 3 }) else {
                throw .corrupt("group options")
            }
            allocation.ranks.append(rank)
            allocation.options.append(options)
            offset += groups
        }
        guard section.count - offset == 2 * wordCount + bitBytes, step.isFinite, step > 0 else {
            throw .corrupt("coded section does not add up")
        }
        let (_, tables, shifts) = components(stepIndex: stepIndex, allocation: allocation, codes: [], rows: rows)
        let words = array(section, offset..<offset + 2 * wordCount, of: UInt16.self)
        let bits = [UInt8](section[(offset + 2 * wordCount)...])
        var codes = [Int16](repeating: 0, count: tables.count * rows)
        guard kv_rans_decode(words, wordCount, bits, bitBytes, tables.count, rows, tables, shifts, &codes) == 0 else {
            throw .corrupt("entropy-coded stream")
        }
        return try synthesise(
            codes, allocation: allocation, rows: rows, step: step, stepIndex: stepIndex, spans: spans)
    }

    private func synthesise(
        _ codes: [Int16], allocation: Kept, rows: Int, step: Float, stepIndex: Int, spans: [Range<Int>]
    ) throws(CodecError) -> [Float] {
        let width = profile.geometry.rowElements
        var values = [Float](repeating: 0, count: rows * width)
        var next = 0
        for (index, basis) in profile.bases.enumerated() {
            var full = [Int16](repeating: 0, count: allocation.ranks[index] * rows)
            var sums = [Int](repeating: 0, count: rows)
            for component in 0..<allocation.ranks[index] {
                let option = allocation.options[index][component / TransformCoder.group]
                guard option != TransformCoder.cutGroup else { continue }
                for row in 0..<rows {
                    let code = Int(codes[next + row]) << Int(option)
                    guard let narrow = Int16(exactly: code) else { throw .corrupt("codes too large") }
                    sums[row] += abs(code)
                    full[component * rows + row] = narrow
                }
                next += rows
            }
            // Sums below 2^24 keep 32-bit accumulators of products with int8 digits from overflowing.
            guard sums.allSatisfy({ $0 < TransformCoder.sumLimit }) else { throw .corrupt("codes too large") }
            full.withUnsafeBufferPointer { full in
                values.withUnsafeMutableBufferPointer { values in
                    guard let source = full.baseAddress else { return }
                    basis.inverse(
                        codes: source, count: allocation.ranks[index], rowCount: rows, step: step, stepIndex: stepIndex,
                        columns: spans,
                        kernels: kernels, target: values.baseAddress!, stride: width)
                }
            }
        }
        return values
    }
}
