import CKernels

/// How a worker lays a page out in memory.
public struct PageLayout: Hashable, Sendable {
    /// Which index runs slowest.
    public enum Order: UInt8, Sendable, CaseIterable {
        /// [tensor][token][head][dim]
        case tensorTokenHead = 0
        /// [token][tensor][head][dim]
        case tokenTensorHead = 1
        /// [tensor][head][token][dim]
        case tensorHeadToken = 2
    }

    /// In which order the tensors follow one another.
    public enum Grouping: UInt8, Sendable, CaseIterable {
        /// Keys of all layers, then values of all layers.
        case rolesApart = 0
        /// Key and value of layer 0, of layer 1, …
        case layerPairs = 1
        /// As `layerPairs`, key and value of one head adjacent in the last dimension.
        case fusedHeads = 2
    }

    /// Number format of every tensor.
    public var element: ElementType
    /// Slowest index first.
    public var order: Order
    /// Sequence of the tensors.
    public var grouping: Grouping
    /// Values run [head][dim][token] inside their tensor, as llama.cpp keeps them without flash attention.
    public var valueTransposed: Bool

    /// A layout; whether it fits a geometry is checked by ``validate(for:)``.
    public init(
        element: ElementType = .f16, order: Order = .tensorTokenHead, grouping: Grouping = .rolesApart,
        valueTransposed: Bool = false
    ) {
        self.element = element
        self.order = order
        self.grouping = grouping
        self.valueTransposed = valueTransposed
    }

    /// Throws where the combination has no meaning for the geometry.
    public func validate(for geometry: Geometry) throws(CodecError) {
        if valueTransposed, order == .tokenTensorHead || grouping == .fusedHeads {
            throw .invalid(
                field: "layout.valueTransposed", "needs tensors that are contiguous and values apart from keys")
        }
        guard grouping == .fusedHeads else { return }
        let keys = geometry.tensors.filter { $0.role == .key }
        let values = geometry.tensors.filter { $0.role == .value }
        guard keys.count + values.count == geometry.tensors.count, keys.count == values.count,
            zip(keys, values).allSatisfy({ $0.layer == $1.layer && $0.heads == $1.heads })
        else {
            throw .invalid(
                field: "layout.grouping", "fusedHeads needs a key and a value of as many heads in every layer")
        }
    }

    /// Bytes of `tokens` rows of the layers in `range`, in any order.
    public func pageBytes(geometry: Geometry, tokens: Int, layers range: Range<Int>? = nil) -> Int {
        let elements: Int
        if let range {
            elements = geometry.tensorIndices(layers: range).reduce(0) { $0 + geometry.tensors[$1].width }
        } else {
            elements = geometry.rowElements
        }
        return elements * tokens * element.bytes
    }
}

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
