import CKernels

/// The coded section of the `transform` mode as blocks of version 1 have it: one stream of all components. It is read for ever;
/// what writes it serves tests, and the benchmark that compares the two forms.
struct TransformStream {
    let profile: Profile

    func decode(
        _ section: UnsafeRawBufferPointer, into page: DecodedPage, kernels: KernelTable
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
        guard section.count - offset == 2 * wordCount + bitBytes else {
            throw .corrupt("coded section does not add up")
        }
        page.rank = count
        let words = section.bindMemory(to: UInt8.self).baseAddress! + offset
        var stream = kv_stream(
            components: all, count: count, tokens: page.codedCount, words: words, word_count: wordCount,
            bits: words + 2 * wordCount, bits_length: bitBytes)
        let result = kernels.pointer.pointee.rans.decode_stream(
            &stream, page.codes.reserve(count * page.codedCount), page.largest.reserve(count))
        guard result == 0 else { throw .corrupt("entropy-coded stream") }
        page.stepIndex = stepIndex
    }

    /// How a component of a group with this option is coded.
    private func component(level: Int, option: UInt8, stepIndex: Int) -> kv_component {
        guard option != TransformCoder.cutGroup else { return kv_component() }
        let entropyClass = TransformCoder.entropyClass(level: level, stepIndex: stepIndex, option: option)
        return kv_component(
            table: profile.tables.table(entropyClass), low_bits: UInt8(EntropyTables.shift(class: entropyClass)),
            doublings: UInt8(TransformCoder.octaves(option)))
    }

    func assemble(
        stepIndex: Int, allocation: TransformCoder.Allocation, codes: [[Int16]], rows: Int
    ) -> [UInt8] {
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
                let result = kv_stream_encode(flat, components, components.count, rows, &buffer)
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
}
