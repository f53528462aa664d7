import CKernels

/// The coded section of the `transform` mode: step, allocation, directory, and chunks of entropy-coded codes, as `BlockFormat.md`
/// lists them.
struct TransformSection {
    /// Of blocks that have the section in this form.
    static let version: UInt16 = 2

    let profile: Profile

    /// Bytes of a section beside the codes.
    static func fixedBytes(_ allocation: TransformCoder.Allocation, rows: Int) -> Int {
        zip(allocation.ranks, allocation.options).reduce(4) { sum, basis in
            let (rank, options) = basis
            let active = options.indices.reduce(0) { active, group in
                options[group] == TransformCoder.cutGroup
                    ? active : active + TransformCoder.members(of: group, rank: rank).count
            }
            return sum + 8 + padded(options.count) + ChunkPlan(active: active, rows: rows).bytes
        }
    }

    private static func padded(_ bytes: Int) -> Int { (bytes + 3) / 4 * 4 }

    /// How a component of a group that is not cut is coded.
    private func component(_ place: Int, level: Int, option: UInt8, stepIndex: Int) -> kv_rans_component {
        let entropyClass = TransformCoder.entropyClass(level: level, stepIndex: stepIndex, option: option)
        return kv_rans_component(
            place: UInt32(place), table: UInt8(entropyClass), low_bits: UInt8(EntropyTables.shift(class: entropyClass)),
            doublings: UInt8(TransformCoder.octaves(option)))
    }

    // MARK: - Encoding

    /// - Parameters:
    ///   - codes: [component][row] of each basis.
    ///   - plan: for as many components.
    func assemble(
        stepIndex: Int, allocation: TransformCoder.Allocation, codes: [[Int16]], rows: Int, plan: (Int) -> ChunkPlan
    ) -> [UInt8] {
        var section: [UInt8] = []
        func append<T: FixedWidthInteger>(_ value: T) {
            withUnsafeBytes(of: value.littleEndian) { section.append(contentsOf: $0) }
        }
        append(Int16(stepIndex))
        append(UInt16(0))
        var (directory, words): ([UInt32], [UInt16]) = ([], [])
        for (index, basis) in profile.bases.enumerated() {
            let (rank, options) = (allocation.ranks[index], allocation.options[index])
            let components = (0..<rank).compactMap { place -> kv_rans_component? in
                let option = options[place / TransformCoder.group]
                guard option != TransformCoder.cutGroup else { return nil }
                return component(place, level: basis.levels[place], option: option, stepIndex: stepIndex)
            }
            let plan = plan(components.count)
            append(UInt32(rank))
            append(UInt16(plan.lanes))
            append(UInt16(plan.chunks))
            section += options
            section += repeatElement(0, count: TransformSection.padded(options.count) - options.count)
            for chunk in 0..<plan.chunks {
                encode(components[plan.components(chunk)], codes[index], rows: rows, lanes: plan.lanes, into: &words)
                directory.append(UInt32(words.count))
            }
        }
        directory.forEach(append)
        words.withUnsafeBytes { section.append(contentsOf: $0) }
        return section
    }

    private func encode(
        _ components: ArraySlice<kv_rans_component>, _ codes: [Int16], rows: Int, lanes: Int, into words: inout [UInt16]
    ) {
        let room = 2 * (lanes + rows * components.count)
        withUnsafeTemporaryAllocation(of: UInt16.self, capacity: room) { space in
            let taken = components.withUnsafeBufferPointer { components in
                var chunk = kv_rans_chunk(
                    tables: profile.tables.table(0), components: components.baseAddress, count: components.count,
                    rows: rows, lanes: UInt32(lanes), words: nil, word_count: 0)
                return kv_rans_encode(&chunk, codes, space.baseAddress, room)
            }
            precondition(taken > 0, "rANS output passes its bound")
            words += space[(room - taken)...]
        }
    }

    // MARK: - Decoding

    /// What the section says of one basis.
    private struct Entry {
        let rank, lanes, chunks: Int
        let options: UnsafeRawBufferPointer
        let end: Int

        init(_ section: UnsafeRawBufferPointer, at offset: Int, basis: Basis) throws(CodecError) {
            guard section.count - offset >= 8 else { throw .corrupt("allocation passes the end") }
            rank = section.u32(offset)
            lanes = section.u16(offset + 4)
            chunks = section.u16(offset + 6)
            guard rank <= basis.rank else { throw .corrupt("rank \(rank); the basis has \(basis.rank)") }
            let groups = (rank + TransformCoder.group - 1) / TransformCoder.group
            end = offset + 8 + TransformSection.padded(groups)
            guard end <= section.count else { throw .corrupt("group options pass the end") }
            options = UnsafeRawBufferPointer(rebasing: section[offset + 8..<offset + 8 + groups])
            for group in 0..<groups where options[group] > 0x7F && options[group] != TransformCoder.cutGroup {
                throw .corrupt("option \(options[group]) of a group")
            }
            for padding in offset + 8 + groups..<end where section[padding] != 0 { throw .corrupt("padding") }
        }
    }

    /// Ranks and options of a section.
    func allocation(_ section: UnsafeRawBufferPointer) throws(CodecError) -> TransformCoder.Allocation {
        var (allocation, offset) = (TransformCoder.Allocation(ranks: [], options: []), 4)
        for basis in profile.bases {
            let entry = try Entry(section, at: offset, basis: basis)
            allocation.ranks.append(entry.rank)
            allocation.options.append([UInt8](entry.options))
            offset = entry.end
        }
        return allocation
    }

    /// Finds the chunks of a section; nothing of them is decoded yet, but codes that are cut are there.
    func open(_ section: UnsafeRawBufferPointer, into page: DecodedPage) throws(CodecError) {
        guard section.count >= 4 else { throw .corrupt("coded section of \(section.count) bytes") }
        guard section.u16(2) == 0 else { throw .corrupt("what follows the step is not 0") }
        let stepIndex = Int(Int16(truncatingIfNeeded: section.u16(0)))
        // How long everything is, before there is memory for it.
        var (offset, rank, chunks) = (4, 0, 0)
        for basis in profile.bases {
            let entry = try Entry(section, at: offset, basis: basis)
            rank += entry.rank
            chunks += entry.chunks
            offset = entry.end
        }
        guard 4 * chunks <= section.count - offset else { throw .corrupt("\(chunks) chunks") }
        var directory = Directory(section: section, next: offset, words: offset + 4 * chunks)
        let (coded, jobs) = (page.coded.reserve(rank), page.chunks.reserve(chunks))
        let (codes, largest) = (page.codes.reserve(rank * page.codedCount), page.largest.reserve(rank))
        (page.rank, page.active, page.chunkCount, page.stepIndex) = (0, 0, 0, stepIndex)
        offset = 4
        for (index, basis) in profile.bases.enumerated() {
            let entry = try Entry(section, at: offset, basis: basis)
            offset = entry.end
            let first = page.active
            for group in entry.options.indices {
                let (option, members) = (entry.options[group], TransformCoder.members(of: group, rank: entry.rank))
                guard option != TransformCoder.cutGroup else {
                    let start = page.rank + members.lowerBound
                    (codes + start * page.codedCount).update(repeating: 0, count: members.count * page.codedCount)
                    (largest + start).update(repeating: 0, count: members.count)
                    continue
                }
                for member in members {
                    coded[page.active] = component(
                        page.rank + member, level: basis.levels[member], option: option, stepIndex: stepIndex)
                    page.active += 1
                }
            }
            let plan = try ChunkPlan(active: page.active - first, lanes: entry.lanes, chunks: entry.chunks)
            for chunk in 0..<plan.chunks {
                let words = try directory.take(atLeast: 2 * plan.lanes)
                let members = plan.components(chunk)
                jobs[page.chunkCount] = kv_rans_chunk(
                    tables: profile.tables.table(0), components: coded + first + members.lowerBound,
                    count: members.count, rows: page.codedCount, lanes: UInt32(plan.lanes), words: words.start,
                    word_count: words.count)
                page.chunkCount += 1
            }
            page.components[index] = page.rank..<page.rank + entry.rank
            page.rank += entry.rank
        }
        guard directory.isUsedUp else { throw .corrupt("coded section does not add up") }
    }

    /// The chunks' words, one after another.
    private struct Directory {
        let section: UnsafeRawBufferPointer
        /// Of the next entry, and of the first word.
        var next: Int
        let words: Int
        var end = 0

        var isUsedUp: Bool { words + 2 * end == section.count }

        mutating func take(atLeast least: Int) throws(CodecError) -> (start: UnsafePointer<UInt8>, count: Int) {
            let start = end
            end = section.u32(next)
            next += 4
            guard end - start >= least, 2 * end <= section.count - words else {
                throw .corrupt("chunk of words \(start) to \(end)")
            }
            return (section.bindMemory(to: UInt8.self).baseAddress! + words + 2 * start, end - start)
        }
    }
}

// Little-endian numbers, whose place is known to be there.
extension UnsafeRawBufferPointer {
    fileprivate func u16(_ offset: Int) -> Int {
        Int(UInt16(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self)))
    }

    fileprivate func u32(_ offset: Int) -> Int {
        Int(UInt32(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
    }
}
