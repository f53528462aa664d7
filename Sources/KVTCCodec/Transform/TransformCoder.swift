import CKernels
import FoundationEssentials
import Glibc

/// The `transform` mode: weighted, centred rows on the profile's basis, one quantiser step, rANS with shared tables.
///
/// Section: i16 step index, u16 0, u32 rANS words, u32 raw-bit bytes, then for each basis u32 rank and
/// ⌈rank / 64⌉ bytes of group options, then the words and bits.
package struct TransformCoder {
    package static let group = 64
    /// Codes beyond this are not coded: their row is protected instead.
    static let codeLimit = 16_383
    /// Largest sum of a row's absolute codes, exclusive.
    static let sumLimit = 1 << 24
    package static let cutGroup: UInt8 = 0xFF
    /// How far a group's class may be from its calibrated one, in quarter octaves.
    package static let driftRange = -16...15

    let profile: Profile
    let kernels: KernelTable

    /// Step of an index: 2^(index / 64).
    static func step(_ index: Int) -> Float { Float(exp2(Double(index) / 64)) }

    /// Option of a group that is not cut: its step is 2^octaves times the common one, its symbol tables are `drift` classes
    /// from those of the profile because this page's coefficients are that much wider.
    package static func option(octaves: Int, drift: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: octaves | (drift << 2)) & 0x7F
    }

    package static func octaves(_ option: UInt8) -> Int { Int(option & 3) }

    package static func drift(_ option: UInt8) -> Int { Int(Int8(bitPattern: option << 1) >> 3) }

    /// Class of a component of a group with that option.
    static func entropyClass(level: Int, stepIndex: Int, option: UInt8) -> Int {
        EntropyTables.classOf(level: level + 16 * drift(option), stepIndex: stepIndex + 64 * octaves(option))
    }

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
            for first in stride(from: 0, to: basis.count, by: rows) {
                for row in 0..<rows {
                    let size = Int(basis[first + row].magnitude)
                    sums[row] += size >= TransformCoder.codeLimit ? TransformCoder.sumLimit : size
                }
            }
        }
        return sums.indices.filter { sums[$0] >= TransformCoder.sumLimit }
    }

    // MARK: - Section

    func assemble(stepIndex: Int, allocation: Kept, codes: [[Int16]], rows: Int) -> [UInt8] {
        var components: [kv_component] = []
        for (index, basis) in profile.bases.enumerated() {
            for component in 0..<allocation.ranks[index] {
                let option = allocation.options[index][component / TransformCoder.group]
                components.append(
                    self.component(level: basis.levels[component], option: option, stepIndex: stepIndex))
            }
        }
        let flat = codes.count == 1 ? codes[0] : Array(codes.joined())
        let room = flat.count + 64
        var bits: [UInt8] = []
        let words = [UInt16](unsafeUninitializedCapacity: room) { words, wordCount in
            bits = [UInt8](unsafeUninitializedCapacity: 2 * room) { bits, bitBytes in
                var buffer = kv_stream_buffer(
                    words: words.baseAddress, words_capacity: room, word_count: 0, bits: bits.baseAddress,
                    bits_capacity: 2 * room, bits_length: 0)
                let result = kv_rans_encode(flat, components, components.count, rows, &buffer)
                precondition(result == 0, "rANS output passes its bound")
                (wordCount, bitBytes) = (buffer.word_count, buffer.bits_length)
            }
        }
        var section: [UInt8] = []
        func append<T: FixedWidthInteger>(_ value: T) {
            withUnsafeBytes(of: value.littleEndian) { section.append(contentsOf: $0) }
        }
        append(Int16(stepIndex))
        append(UInt16(0))
        append(UInt32(words.count))
        append(UInt32(bits.count))
        for (rank, options) in zip(allocation.ranks, allocation.options) {
            append(UInt32(rank))
            section += options
        }
        words.withUnsafeBytes { section.append(contentsOf: $0) }
        section += bits
        return section
    }

    /// How a component of a group with this option is coded.
    func component(level: Int, option: UInt8, stepIndex: Int) -> kv_component {
        guard option != TransformCoder.cutGroup else { return kv_component() }
        let entropyClass = TransformCoder.entropyClass(level: level, stepIndex: stepIndex, option: option)
        return kv_component(
            table: profile.tables.table(entropyClass), low_bits: UInt8(EntropyTables.shift(class: entropyClass)),
            doublings: UInt8(TransformCoder.octaves(option)))
    }
}
