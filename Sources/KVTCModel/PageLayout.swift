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
    public var element: Element
    /// Slowest index first.
    public var order: Order
    /// Sequence of the tensors.
    public var grouping: Grouping
    /// Values run [head][dim][token] inside their tensor, as llama.cpp keeps them without flash attention.
    public var valueTransposed: Bool

    /// A layout; whether it fits a geometry is checked by ``validate(for:)``.
    public init(
        element: Element = .f16, order: Order = .tensorTokenHead, grouping: Grouping = .rolesApart,
        valueTransposed: Bool = false
    ) {
        self.element = element
        self.order = order
        self.grouping = grouping
        self.valueTransposed = valueTransposed
    }

    /// Throws where the combination has no meaning for the geometry.
    public func validate(for geometry: Geometry) throws(ModelError) {
        if valueTransposed, order == .tokenTensorHead || grouping == .fusedHeads {
            throw ModelError(
                field: "layout.valueTransposed", "needs tensors that are contiguous and values apart from keys")
        }
        guard grouping == .fusedHeads else { return }
        let keys = geometry.tensors.filter { $0.role == .key }
        let values = geometry.tensors.filter { $0.role == .value }
        guard keys.count + values.count == geometry.tensors.count, keys.count == values.count,
            zip(keys, values).allSatisfy({ $0.layer == $1.layer && $0.heads == $1.heads })
        else {
            throw ModelError(
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
