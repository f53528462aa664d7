import CKernels
import FoundationEssentials
import Glibc

/// The `transform` mode: weighted, centred rows on the profile's basis, one quantiser step, rANS with shared tables.
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

    /// Components of a group, as far as they are kept.
    static func members(of group: Int, rank: Int) -> Range<Int> {
        group * TransformCoder.group..<min(rank, (group + 1) * TransformCoder.group)
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
            task.header.version = TransformSection.version
            task.header.step = TransformCoder.step(point.stepIndex)
            task.header.distortion = Float(point.distortion)
            return TransformSection(profile: profile).assemble(
                stepIndex: point.stepIndex, allocation: point.allocation, codes: codes, rows: rows
            ) { ChunkPlan(active: $0, rows: rows) }
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

    func decode(
        _ section: UnsafeRawBufferPointer, _ header: BlockHeader, into page: DecodedPage
    ) throws(CodecError) {
        guard header.step.isFinite, header.step > 0 else { throw .corrupt("step \(header.step)") }
        if header.version < TransformSection.version {
            try TransformStream(profile: profile).decode(section, into: page, kernels: kernels)
        } else {
            try TransformSection(profile: profile).open(section, into: page)
        }
    }
}
