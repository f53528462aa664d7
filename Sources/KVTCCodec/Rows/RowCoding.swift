import CKernels
import KVTCModel

extension PageCodec {
    /// The coded section for the rows not in `protected`; nil where there are none or where the mode can't keep the
    /// distortion asked for. May protect further rows whose values the mode can't represent.
    func codeRows(
        _ page: UnsafeRawBufferPointer, header: inout BlockHeader, protected: inout RowSet, quality: Quality,
        keepOutliers: Bool
    ) throws(CodecError) -> [UInt8]? {
        guard protected.count < header.tokens else { return nil }
        switch header.mode {
        case .quant8, .quant4:
            return quantiseRows(page, header: &header, rows: protected.complement)
        case .transform, .kvtc:
            let profile = try needProfile()
            return memories.with {
                transformRows(
                    page, header: &header, protected: &protected, quality: quality, keepOutliers: keepOutliers,
                    profile: profile, memory: $0)
            }
        case .raw, .lossless:
            return nil
        }
    }

    private func needProfile() throws(CodecError) -> Profile {
        guard let profile else { throw .unsupported("this mode needs a profile; calibrate one, or use lossless") }
        return profile
    }

    private func transformRows(
        _ page: UnsafeRawBufferPointer, header: inout BlockHeader, protected: inout RowSet, quality: Quality,
        keepOutliers: Bool,
        profile: Profile, memory: CoderMemory
    ) -> [UInt8]? {
        let transform = RowTransform(profile: profile, kernels: kernels)
        while protected.count < header.tokens {
            let rows = protected.complement
            let width = geometry.rowElements
            let weighted = memory.weighted.reserve(rows.count * width)
            transform.weigh(
                page.baseAddress!, element: header.element, firstPosition: header.firstPosition, rows: rows,
                into: weighted)
            // Shifts and scales of the published mode are half precision; in the other one squares must stay finite.
            let limit = header.mode == .kvtc ? 65_504.0 : 1e15
            // Squares beyond what floats hold are infinite, which is beyond the limit as well.
            let immense = rows.indices.filter {
                !(kv_error(weighted + $0 * width, nil, width, 0).energy <= limit * limit)
            }
            let outliers = keepOutliers ? transform.outliers(weighted, rows: rows.count) : []
            guard immense.isEmpty, outliers.isEmpty else {
                for index in immense + outliers { protected.insert(rows[index]) }
                continue
            }
            let budget = Budget(
                quality: quality,
                overhead: BlockHeader.size + (protected.isEmpty ? 0 : RowSet.bitmapBytes(header.tokens)),
                rawBytes: rows.count * geometry.rowElements * header.element.bytes)
            header.profile = profile.id
            let control = RateControl(profile: profile, budget: budget)
            func coefficients(step: Float) -> Coefficients {
                Coefficients(
                    profile: profile, weighted: weighted, rows: rows.count, step: step, kernels: kernels,
                    memory: memory)
            }
            let predicted = control.predictedStep()
            if header.mode == .kvtc {
                let result = KVTCCoder(profile: profile, kernels: kernels).encode(
                    coefficients(step: TransformCoder.step(predicted) / 4), budget: budget)
                guard budget.allows(distortion: result.distortion) else { return nil }
                header.step = result.step
                header.distortion = Float(result.distortion)
                return result.section
            }
            let coder = TransformCoder(profile: profile, kernels: kernels)
            var input = coefficients(step: TransformCoder.step(predicted))
            var plan = control.search(input)
            // Far finer than expected: once more with coefficients that are as precise.
            if plan.stepIndex < predicted - 64 {
                input = coefficients(step: TransformCoder.step(plan.stepIndex))
                plan = control.search(input)
            }
            guard budget.allows(distortion: plan.distortion) else { return nil }
            let codes = control.codes(plan, input)
            let wild = coder.wildRows(codes, rows: rows.count)
            guard wild.isEmpty else {
                for index in wild { protected.insert(rows[index]) }
                continue
            }
            header.step = TransformCoder.step(plan.stepIndex)
            header.distortion = Float(plan.distortion)
            return coder.assemble(
                stepIndex: plan.stepIndex, allocation: plan.allocation, codes: codes, rows: rows.count)
        }
        return nil
    }

    private func quantiseRows(_ page: UnsafeRawBufferPointer, header: inout BlockHeader, rows: [Int]) -> [UInt8] {
        let bits = header.mode == .quant8 ? 8 : 4
        let width = geometry.rowElements
        let rowBytes = width * header.element.bytes
        var section: [UInt8] = []
        section.reserveCapacity(rows.count * IntegerQuantiser.rowBytes(elements: width, bits: bits))
        var (error, energy) = (0.0, 0.0)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * width) { scratch in
            let values = UnsafeMutableBufferPointer(rebasing: scratch[..<width])
            let restored = UnsafeMutableBufferPointer(rebasing: scratch[width...])
            for row in rows {
                kernels.toFloat(header.element, page.baseAddress! + row * rowBytes, values.baseAddress!, width)
                let start = section.count
                IntegerQuantiser.encode(
                    UnsafeBufferPointer(values), bits: bits, kernels: kernels, output: &section)
                section.withUnsafeBytes {
                    IntegerQuantiser.decode(
                        UnsafeRawBufferPointer(rebasing: $0[start...]), bits: bits, kernels: kernels,
                        into: restored)
                }
                for index in 0..<width {
                    let difference = Double(values[index] - restored[index])
                    error += difference * difference
                    energy += Double(values[index]) * Double(values[index])
                }
            }
        }
        header.distortion = energy > 0 ? Float(error / energy) : 0
        return section
    }
}
