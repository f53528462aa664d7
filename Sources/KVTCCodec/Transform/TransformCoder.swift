import CKernels
import FoundationEssentials
import Glibc

/// The `transform` mode: weighted, centred rows on the profile's basis, one quantiser step, rANS with shared tables.
///
/// Section: i16 step index, u16 0, u32 rANS words, u32 raw-bit bytes, then for each basis u32 rank and
/// ⌈rank / 64⌉ bytes of group options, then the words and bits.
package struct TransformCoder: RowCoder {
    package static let group = 64
    /// Codes beyond this are not coded: their row is protected instead.
    static let codeLimit = 16_383
    /// Largest sum of a row's absolute codes, exclusive.
    static let sumLimit = 1 << 24
    package static let cutGroup: UInt8 = 0xFF
    /// How far a group's class may be from its calibrated one, in quarter octaves.
    package static let classOffsetRange = -16...15

    let profile: Profile
    let kernels: KernelTable

    /// Step of an index: 2^(index / 64).
    static func step(_ index: Int) -> Float { Float(exp2(Double(index) / 64)) }

    /// Option of a group that is not cut: its step is 2^octaves times the common one, its symbol tables are `classOffset`
    /// classes from those of the profile because this page's coefficients are that much wider.
    package static func option(octaves: Int, classOffset: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: octaves | (classOffset << 2)) & 0x7F
    }

    package static func octaves(_ option: UInt8) -> Int { Int(option & 3) }

    package static func classOffset(_ option: UInt8) -> Int { Int(Int8(bitPattern: option << 1) >> 3) }

    /// Class of a component of a group with that option.
    static func entropyClass(level: Int, stepIndex: Int, option: UInt8) -> Int {
        EntropyTables.classOf(level: level + 16 * classOffset(option), stepIndex: stepIndex + 64 * octaves(option))
    }

    /// Bytes of a section beside the entropy-coded bits: header, allocation, rANS states, rounding.
    static func fixedBytes(ranks: [Int]) -> Int {
        12 + ranks.reduce(0) { $0 + 4 + ($1 + group - 1) / group } + 4 * KV_LANES + 2
    }

    /// How the bits are spent: what the decoder needs to know of each basis.
    struct Allocation {
        /// Components kept of each basis.
        var ranks: [Int]
        /// Option of each group of 64 components, basis by basis.
        var options: [[UInt8]]
    }

    func encode(_ task: inout CodingTask, memory: CoderMemory) -> [UInt8]? {
        let transform = RowTransform(profile: profile, kernels: kernels)
        // Squares of floats must stay finite.
        while let weighted = transform.weigh(&task, limit: 1e15, memory: memory) {
            let rows = weighted.rows.count
            let budget = Budget(task, codedRows: rows)
            let control = RateControl(profile: profile, budget: budget)
            func coefficients(stepIndex: Int) -> Coefficients {
                Coefficients(
                    profile: profile, weighted: weighted.values, rows: rows, step: TransformCoder.step(stepIndex),
                    kernels: kernels, memory: memory)
            }
            let predicted = control.predictedStep()
            var input = coefficients(stepIndex: predicted)
            var point = control.search(input)
            // Far finer than expected: once more with coefficients that are as precise.
            if point.stepIndex < predicted - 64 {
                input = coefficients(stepIndex: point.stepIndex)
                point = control.search(input)
            }
            guard budget.allows(distortion: point.distortion) else { return nil }
            let codes = control.codes(point, input)
            let wild = wildRows(codes, rows: rows)
            guard wild.isEmpty else {
                for index in wild { task.header.protected.insert(weighted.rows[index]) }
                continue
            }
            task.header.profile = profile.id
            task.header.step = TransformCoder.step(point.stepIndex)
            task.header.distortion = Float(point.distortion)
            return assemble(stepIndex: point.stepIndex, allocation: point.allocation, codes: codes, rows: rows)
        }
        return nil
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

    func assemble(stepIndex: Int, allocation: Allocation, codes: [[Int16]], rows: Int) -> [UInt8] {
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

    func decode(
        _ section: UnsafeRawBufferPointer, _ header: BlockHeader, into page: DecodedPage
    ) throws(CodecError) {
        guard section.count >= 12 else { throw .corrupt("coded section of \(section.count) bytes") }
        func word(_ offset: Int) -> Int {
            Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        }
        let stepIndex = Int(Int16(littleEndian: section.loadUnaligned(as: Int16.self)))
        let (wordCount, bitBytes) = (word(4), word(8))
        var offset = 12
        var count = 0
        page.active = 0
        let all = page.streams.reserve(profile.bases.reduce(0) { $0 + $1.rank })
        for (index, basis) in profile.bases.enumerated() {
            guard section.count - offset >= 4 else { throw .corrupt("allocation passes the end") }
            let rank = word(offset)
            offset += 4
            let groups = (rank + TransformCoder.group - 1) / TransformCoder.group
            guard rank <= basis.rank, groups <= section.count - offset else { throw .corrupt("rank \(rank)") }
            page.components[index] = count..<count + rank
            for component in 0..<rank {
                let option = section[offset + component / TransformCoder.group]
                guard option == TransformCoder.cutGroup || option <= 0x7F else { throw .corrupt("group options") }
                all[count] = self.component(level: basis.levels[component], option: option, stepIndex: stepIndex)
                if all[count].table != nil { page.active += 1 }
                count += 1
            }
            offset += groups
        }
        guard section.count - offset == 2 * wordCount + bitBytes, header.step.isFinite, header.step > 0 else {
            throw .corrupt("coded section does not add up")
        }
        page.rank = count
        let words = section.bindMemory(to: UInt8.self).baseAddress! + offset
        var stream = kv_stream(
            components: all, count: count, tokens: page.codedCount, words: words, word_count: wordCount,
            bits: words + 2 * wordCount, bits_length: bitBytes)
        let result = kernels.pointer.pointee.rans.decode(
            &stream, page.codes.reserve(count * page.codedCount), page.largest.reserve(count))
        guard result == 0 else { throw .corrupt("entropy-coded stream") }
        page.stepIndex = stepIndex
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
