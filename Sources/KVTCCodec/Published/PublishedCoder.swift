import CKernels
import Glibc

/// The `kvtc` mode: the published pipeline (Staniszewski & Łańcucki, arXiv 2511.01815) on the profile's bases.
///
/// Components in order of variance form contiguous groups of 1, 16, 64, 256 or 1024, each dropped or in 2, 4 or 8 bits with
/// a 16-bit shift and scale a token; dynamic programming picks sizes and bits; the packed bytes go through DEFLATE or LZ4.
/// Unlike the paper's, the grouping is made for the page at hand and stored in the block, so that any profile serves any ratio;
/// a group starts at a multiple of its size; 8 bits are integers.
struct PublishedCoder: RowCoder {
    static let sizes = [1, 16, 64, 256, 1024]
    static let bits = [0, 2, 4, 8]
    /// Bytes of shift and scale of a group and token.
    static let sideBytes = 4

    let profile: Profile
    let kernels: KernelTable

    /// One group: `bits[type]` for `sizes[size]` components, fewer at the end.
    struct Group: Hashable {
        var size: Int
        var type: Int
        var byte: UInt8 { UInt8(size | type << 4) }

        init(size: Int, type: Int) { (self.size, self.type) = (size, type) }

        init?(byte: UInt8) {
            (size, type) = (Int(byte & 15), Int(byte >> 4))
            guard size < PublishedCoder.sizes.count, type < PublishedCoder.bits.count else { return nil }
        }
    }

    func encode(_ task: inout CodingTask, memory: CoderMemory) -> [UInt8]? {
        // Shifts and scales are half precision.
        let transform = RowTransform(profile: profile, kernels: kernels)
        guard let weighted = transform.weigh(&task, limit: 65_504, memory: memory) else { return nil }
        let budget = Budget(task, codedRows: weighted.rows.count)
        let predicted = RateControl(profile: profile, budget: budget).predictedStep()
        let result = encode(
            Coefficients(
                profile: profile, weighted: weighted.values, rows: weighted.rows.count,
                step: TransformCoder.step(predicted) / 4, kernels: kernels, memory: memory),
            budget: budget)
        guard budget.allows(distortion: result.distortion) else { return nil }
        task.header.profile = profile.id
        task.header.step = result.step
        task.header.distortion = Float(result.distortion)
        return result.section
    }

    func decode(
        _ section: UnsafeRawBufferPointer, _ header: BlockHeader, into page: DecodedPage
    ) throws(CodecError) {
        let rows = page.codedCount
        guard rows > 0 else { throw .corrupt("a coded section without rows") }
        let bases = try decode(section, rows: rows, step: header.step)
        let count = bases.reduce(0) { $0 + $1.count / rows }
        let (target, top) = (page.codes.reserve(count * rows), page.largest.reserve(count))
        var next = 0
        for (index, basis) in bases.enumerated() {
            let first = next
            for start in stride(from: 0, to: basis.count, by: rows) {
                top[next] = 0
                for row in 0..<rows {
                    target[next * rows + row] = basis[start + row]
                    top[next] = max(top[next], basis[start + row].magnitude)
                }
                next += 1
            }
            page.components[index] = first..<next
        }
        page.stepIndex = nil
    }

    /// - Returns: the coded section; the step of the integers that the inverse transform sums; measured distortion.
    private func encode(_ coefficients: Coefficients, budget: Budget) -> (
        section: [UInt8], step: Float, distortion: Double
    ) {
        let rows = coefficients.rows
        let tables = profile.bases.enumerated().map { index, basis in
            GroupingSearch(
                values: values(coefficients, index), rank: basis.rank, rows: rows, coder: self)
        }
        func attempt(_ power: Int) -> (section: [UInt8], distortion: Double, largest: Float) {
            // λ in quarter octaves around the energy of one code.
            let slope = exp2f(Float(power) / 4)
            let groupings = tables.map { $0.best(slope: slope) }
            var error = CodingError()
            for (table, grouping) in zip(tables, groupings) { table.add(grouping, to: &error) }
            let (section, largest) = pack(groupings, coefficients)
            let expected = profile.metadata.energy * Double(max(rows, 1))
            return (section, error.total(of: coefficients.energy) / expected, largest)
        }
        var (low, high) = (-80, 120)
        var fine = attempt(low)
        var coarse = attempt(high)
        while high - low > 1 {
            let middle = attempt((low + high) / 2)
            if budget.isCoarse(bytes: middle.section.count, distortion: middle.distortion) {
                (high, coarse) = ((low + high) / 2, middle)
            } else {
                (low, fine) = ((low + high) / 2, middle)
            }
        }
        let chosen = budget.choose(fine: fine, coarse: coarse) { $0.distortion }
        return (chosen.section, max(chosen.largest, 1e-20) / 16_000, chosen.distortion)
    }

    /// All components of a basis: [component][row].
    private func values(_ coefficients: Coefficients, _ index: Int) -> [Float] {
        let rank = profile.bases[index].rank
        return [Float](
            UnsafeBufferPointer(start: coefficients.leading(rank, basis: index), count: rank * coefficients.rows))
    }

    /// Section: u8 method (1 LZ4, 2 DEFLATE), 3 zero bytes, u32 grouping bytes, u32 packed bytes; for each basis u32 groups and a
    /// byte each (size index, bits index << 4); then the compressed payload.
    private func pack(_ groupings: [[Group]], _ coefficients: Coefficients) -> (section: [UInt8], largest: Float) {
        var payload: [UInt8] = []
        var largest: Float = 0
        for (index, grouping) in groupings.enumerated() {
            let values = values(coefficients, index)
            var first = 0
            for group in grouping {
                let count = min(PublishedCoder.sizes[group.size], profile.bases[index].rank - first)
                if PublishedCoder.bits[group.type] > 0 {
                    let top = PublishedGroup(values: values, first: first, count: count, rows: coefficients.rows)
                        .append(bits: PublishedCoder.bits[group.type], kernels: kernels, to: &payload)
                    largest = max(largest, top)
                }
                first += count
            }
        }
        let (method, packed) = PublishedPayload.compress(payload)
        var section: [UInt8] = [method, 0, 0, 0]
        func append(_ value: Int) { withUnsafeBytes(of: UInt32(value).littleEndian) { section.append(contentsOf: $0) } }
        append(groupings.reduce(0) { $0 + 4 + $1.count })
        append(payload.count)
        for grouping in groupings {
            append(grouping.count)
            section += grouping.map(\.byte)
        }
        return (section + packed, largest)
    }

    /// Integer codes of the common step, [component][row] of each basis.
    private func decode(
        _ section: UnsafeRawBufferPointer, rows: Int, step: Float
    ) throws(CodecError) -> [[Int16]] {
        func word(_ offset: Int) -> Int {
            Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        }
        guard section.count >= 12, step.isFinite, step > 0 else { throw .corrupt("coded section header") }
        let (groupingBytes, payloadBytes) = (word(4), word(8))
        guard groupingBytes <= section.count - 12 else { throw .corrupt("grouping passes the end") }
        var offset = 12
        var groupings: [[Group]] = []
        for basis in profile.bases {
            guard 12 + groupingBytes - offset >= 4 else { throw .corrupt("grouping is short") }
            let count = word(offset)
            offset += 4
            guard count <= 12 + groupingBytes - offset else { throw .corrupt("grouping of \(count) groups") }
            let groups = section[offset..<offset + count].compactMap(Group.init)
            guard groups.count == count, groups.reduce(0, { $0 + PublishedCoder.sizes[$1.size] }) < basis.rank + 1024
            else {
                throw .corrupt("grouping holds an unknown group")
            }
            groupings.append(groups)
            offset += count
        }
        // No group packs more than 12 bytes a component and row.
        let limit = profile.bases.reduce(0) { $0 + $1.rank } * rows * 12
        guard offset == 12 + groupingBytes, payloadBytes <= limit else {
            throw .corrupt("payload of \(payloadBytes) bytes")
        }
        let payload = try PublishedPayload.decompress(
            UnsafeRawBufferPointer(rebasing: section[offset...]), method: section[0], bytes: payloadBytes)
        var result: [[Int16]] = []
        var next = 0
        for (index, basis) in profile.bases.enumerated() {
            var codes = [Int16](repeating: 0, count: basis.rank * rows)
            var first = 0
            for group in groupings[index] {
                let count = min(PublishedCoder.sizes[group.size], basis.rank - first)
                guard count > 0 else { throw .corrupt("groups pass the rank") }
                let bits = PublishedCoder.bits[group.type]
                if bits > 0 {
                    let size = PublishedGroup.bytes(bits: bits, count: count, rows: rows)
                    guard size <= payload.count - next else { throw .corrupt("payload is short") }
                    PublishedGroup.read(
                        payload[next..<next + size], bits: bits, count: count, rows: rows, inverseStep: 1 / step,
                        kernels: kernels, into: &codes, at: first)
                    next += size
                }
                first += count
            }
            codes.removeLast((basis.rank - min(first, basis.rank)) * rows)
            result.append(codes)
        }
        guard next == payload.count else { throw .corrupt("payload has bytes left over") }
        return result
    }
}
