import CKernels
import KVTCModel

extension PageLayout {
    /// The runs that make up the tensors of `range`, neighbours joined where they are contiguous on both sides.
    func placements(geometry: Geometry, tokens: Int, layers range: Range<Int>) -> [kv_run] {
        let indices = geometry.tensorIndices(layers: range)
        let width = indices.reduce(0) { $0 + geometry.tensors[$1].width }
        var runs: [kv_run] = []
        var base = 0
        for group in groups(of: indices, in: geometry) {
            let groupWidth = group.reduce(0) { $0 + geometry.tensors[$1].width }
            // Elements of one head index over the whole group: key and value side by side when fused.
            let headWidth = group.reduce(0) { $0 + geometry.tensors[$1].headDim }
            var inHead = 0
            for index in group {
                let tensor = geometry.tensors[index]
                for head in 0..<tensor.heads {
                    let row = geometry.offsets[index] + head * tensor.headDim
                    var run = kv_run(
                        column: UInt32(row), length: UInt32(tensor.headDim), base: 0, token_stride: 0, element_stride: 1
                    )
                    if valueTransposed && tensor.role == .value {
                        run.base = base * tokens + head * tensor.headDim * tokens
                        run.token_stride = 1
                        run.element_stride = tokens
                    } else {
                        let inToken = head * headWidth + inHead
                        switch order {
                        case .tensorTokenHead:
                            run.base = base * tokens + inToken
                            run.token_stride = groupWidth
                        case .tokenTensorHead:
                            run.base = base + inToken
                            run.token_stride = width
                        case .tensorHeadToken:
                            run.base = base * tokens + head * headWidth * tokens + inHead
                            run.token_stride = headWidth
                        }
                    }
                    append(run, to: &runs)
                }
                inHead += tensor.headDim
            }
            base += groupWidth
        }
        return runs
    }

    /// Tensors that share their innermost dimension, in the order in which the layout stores them.
    private func groups(of indices: [Int], in geometry: Geometry) -> [[Int]] {
        let byLayer = indices.sorted {
            (geometry.tensors[$0].layer, geometry.tensors[$0].role.rawValue)
                < (geometry.tensors[$1].layer, geometry.tensors[$1].role.rawValue)
        }
        switch grouping {
        case .rolesApart: return indices.map { [$0] }
        case .layerPairs: return byLayer.map { [$0] }
        case .fusedHeads:
            return stride(from: 0, to: byLayer.count, by: 2).map { Array(byLayer[$0..<min($0 + 2, byLayer.count)]) }
        }
    }

    private func append(_ run: kv_run, to runs: inout [kv_run]) {
        if var last = runs.last, last.element_stride == 1, run.element_stride == 1,
            last.token_stride == run.token_stride, last.column + last.length == run.column,
            last.base + Int(last.length) == run.base
        {
            last.length += run.length
            runs[runs.count - 1] = last
        } else {
            runs.append(run)
        }
    }
}
