import CKernels
import CLZ4
import Glibc

/// The `kvtc` mode: the published pipeline (Staniszewski & Łańcucki, arXiv 2511.01815) on the profile's bases.
///
/// Components in order of variance form contiguous groups of 1, 16, 64, 256 or 1024, each dropped or in 2, 4 or 8 bits with
/// a 16-bit shift and scale a token; dynamic programming picks sizes and bits; the packed bytes go through DEFLATE or LZ4.
/// Unlike the paper's, the plan is made for the page at hand and stored in the block, so that any profile serves any ratio;
/// a group starts at a multiple of its size; 8 bits are integers.
struct KVTCCoder {
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
            guard size < KVTCCoder.sizes.count, type < KVTCCoder.bits.count else { return nil }
        }
    }

    /// - Returns: the coded section; the step of the integers that the inverse transform sums; measured distortion.
    func encode(_ coefficients: Coefficients, budget: Budget) -> (section: [UInt8], step: Float, distortion: Double) {
        let rows = coefficients.rows
        let tables = profile.bases.enumerated().map { index, basis in
            KVTCChoices(
                values: values(coefficients, index), rank: basis.rank, rows: rows, coder: self)
        }
        func attempt(_ power: Int) -> (section: [UInt8], distortion: Double, largest: Float) {
            // λ in quarter octaves around the energy of one code.
            let slope = exp2f(Float(power) / 4)
            let plans = tables.map { $0.plan(slope: slope) }
            var error = CodingError()
            for (table, plan) in zip(tables, plans) { table.add(plan, to: &error) }
            let (section, largest) = pack(plans, coefficients)
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

    /// Section: u8 method (1 LZ4, 2 DEFLATE), 3 zero bytes, u32 plan bytes, u32 packed bytes; for each basis u32 groups and a
    /// byte each (size index, bits index << 4); then the compressed payload.
    private func pack(_ plans: [[Group]], _ coefficients: Coefficients) -> (section: [UInt8], largest: Float) {
        var payload: [UInt8] = []
        var largest: Float = 0
        for (index, plan) in plans.enumerated() {
            let values = values(coefficients, index)
            var first = 0
            for group in plan {
                let count = min(KVTCCoder.sizes[group.size], profile.bases[index].rank - first)
                if KVTCCoder.bits[group.type] > 0 {
                    let top = KVTCGroup(values: values, first: first, count: count, rows: coefficients.rows)
                        .append(bits: KVTCCoder.bits[group.type], kernels: kernels, to: &payload)
                    largest = max(largest, top)
                }
                first += count
            }
        }
        let (method, packed) = KVTCCoder.compress(payload)
        var section: [UInt8] = [method, 0, 0, 0]
        func append(_ value: Int) { withUnsafeBytes(of: UInt32(value).littleEndian) { section.append(contentsOf: $0) } }
        append(plans.reduce(0) { $0 + 4 + $1.count })
        append(payload.count)
        for plan in plans {
            append(plan.count)
            section += plan.map(\.byte)
        }
        return (section + packed, largest)
    }

    /// Integer codes of the common step, [component][row] of each basis.
    func decode(
        _ section: UnsafeRawBufferPointer, rows: Int, step: Float
    ) throws(CodecError) -> [[Int16]] {
        func word(_ offset: Int) -> Int {
            Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        }
        guard section.count >= 12, step.isFinite, step > 0 else { throw .corrupt("coded section header") }
        let (planBytes, payloadBytes) = (word(4), word(8))
        guard planBytes <= section.count - 12 else { throw .corrupt("plan passes the end") }
        var offset = 12
        var plans: [[Group]] = []
        for basis in profile.bases {
            guard 12 + planBytes - offset >= 4 else { throw .corrupt("plan is short") }
            let count = word(offset)
            offset += 4
            guard count <= 12 + planBytes - offset else { throw .corrupt("plan of \(count) groups") }
            let groups = section[offset..<offset + count].compactMap(Group.init)
            guard groups.count == count, groups.reduce(0, { $0 + KVTCCoder.sizes[$1.size] }) < basis.rank + 1024 else {
                throw .corrupt("plan holds an unknown group")
            }
            plans.append(groups)
            offset += count
        }
        // No group packs more than 12 bytes a component and row.
        let limit = profile.bases.reduce(0) { $0 + $1.rank } * rows * 12
        guard offset == 12 + planBytes, payloadBytes <= limit else {
            throw .corrupt("payload of \(payloadBytes) bytes")
        }
        let payload = try KVTCCoder.decompress(
            UnsafeRawBufferPointer(rebasing: section[offset...]), method: section[0], bytes: payloadBytes)
        var result: [[Int16]] = []
        var next = 0
        for (index, basis) in profile.bases.enumerated() {
            var codes = [Int16](repeating: 0, count: basis.rank * rows)
            var first = 0
            for group in plans[index] {
                let count = min(KVTCCoder.sizes[group.size], basis.rank - first)
                guard count > 0 else { throw .corrupt("groups pass the rank") }
                let bits = KVTCCoder.bits[group.type]
                if bits > 0 {
                    let size = KVTCGroup.bytes(bits: bits, count: count, rows: rows)
                    guard size <= payload.count - next else { throw .corrupt("payload is short") }
                    KVTCGroup.read(
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

    /// DEFLATE, or LZ4 where it comes within 3 %: it unpacks several times faster.
    private static func compress(_ payload: [UInt8]) -> (method: UInt8, bytes: [UInt8]) {
        let deflated = Deflate.compress(payload, level: 6)
        let lz4 = [UInt8](unsafeUninitializedCapacity: Int(LZ4_compressBound(Int32(payload.count)))) { buffer, count in
            count = payload.withUnsafeBytes {
                Int(
                    LZ4_compress_default(
                        $0.bindMemory(to: CChar.self).baseAddress,
                        UnsafeMutableRawBufferPointer(buffer).bindMemory(to: CChar.self).baseAddress,
                        Int32($0.count), Int32(buffer.count)))
            }
        }
        return lz4.count * 100 <= deflated.count * 103 ? (1, lz4) : (2, deflated)
    }

    private static func decompress(
        _ packed: UnsafeRawBufferPointer, method: UInt8, bytes: Int
    ) throws(CodecError) -> [UInt8] {
        switch method {
        case 1 where packed.count <= Int(Int32.max) && bytes <= Int(Int32.max):
            var written: Int32 = -1
            let payload = [UInt8](unsafeUninitializedCapacity: bytes) { buffer, count in
                written = LZ4_decompress_safe(
                    packed.bindMemory(to: CChar.self).baseAddress,
                    UnsafeMutableRawBufferPointer(buffer).bindMemory(to: CChar.self).baseAddress, Int32(packed.count),
                    Int32(bytes))
                count = max(0, Int(written))
            }
            guard payload.count == bytes else { throw .corrupt("compressed payload") }
            return payload
        case 2:
            guard let payload = Deflate.decompress(packed, bytes: bytes) else { throw .corrupt("compressed payload") }
            return payload
        default: throw .corrupt("compression method \(method)")
        }
    }
}
