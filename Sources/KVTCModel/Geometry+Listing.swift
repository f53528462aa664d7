extension Geometry {
    /// The geometry of pages whose tensors were listed one by one. A geometry has an order of its own; a list in another
    /// one than these means a page that is read wrongly, so it is an error.
    public init(listed tensors: [TensorGeometry], grouping: PageLayout.Grouping) throws(ModelError) {
        try self.init(tensors: tensors)
        func firstAstray(_ precedes: (TensorGeometry, TensorGeometry) -> Bool) -> Int? {
            zip(tensors, tensors.dropFirst()).enumerated().first { !precedes($0.element.0, $0.element.1) }
                .map { $0.offset + 1 }
        }
        let byLayer = firstAstray { ($0.layer, $0.role.rawValue) < ($1.layer, $1.role.rawValue) }
        let byRole = firstAstray { ($0.role.rawValue, $0.layer) < ($1.role.rawValue, $1.layer) }
        guard let astray = byLayer, grouping != .rolesApart || byRole != nil else { return }
        // Of two orders that may be meant the one that is kept longer.
        let index = grouping == .rolesApart ? max(astray, byRole ?? 0) : astray
        func name(_ tensor: TensorGeometry) -> String { "the \(tensor.role) of layer \(tensor.layer)" }
        throw ModelError(
            field: "geometry.tensors[\(index)]",
            "\(name(tensors[index])) stands after \(name(tensors[index - 1])): list the tensors layer by layer, in each key, "
                + "value, latent" + (grouping == .rolesApart ? ", or all keys, then all values, then all latents" : "")
                + ", and fill pages as layout.grouping says")
    }
}
