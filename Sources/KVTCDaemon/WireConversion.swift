import KVTCCodec
import KVTCProtocol
import KVTCStore

extension WireLayout {
    /// The layout in the codec's terms; their raw values are the same numbers.
    var codecLayout: PageLayout {
        PageLayout(
            element: ElementType(rawValue: element.rawValue) ?? .f16,
            order: PageLayout.Order(rawValue: order.rawValue) ?? .tensorTokenHead,
            grouping: PageLayout.Grouping(rawValue: grouping.rawValue) ?? .rolesApart,
            valueTransposed: valueTransposed)
    }
}

extension WireGeometry {
    /// The geometry in the codec's terms; tensors in an order that no page of the grouping has are an error.
    func codecGeometry(grouping: WireGrouping) throws(CodecError) -> Geometry {
        var converted: [TensorGeometry] = []
        converted.reserveCapacity(tensors.count)
        for tensor in tensors {
            converted.append(
                TensorGeometry(
                    layer: Int(tensor.layer), role: TensorRole(rawValue: tensor.role.rawValue) ?? .key,
                    heads: Int(tensor.heads), headDim: Int(tensor.headDim), rotary: try rotary(of: tensor)))
        }
        let geometry = try Geometry(tensors: converted)
        try checkOrder(grouping)
        return geometry
    }

    /// The codec puts tensors in its own order. A list in another one than these means a page that is read wrongly.
    private func checkOrder(_ grouping: WireGrouping) throws(CodecError) {
        func firstAstray(_ precedes: (WireTensor, WireTensor) -> Bool) -> Int? {
            zip(tensors, tensors.dropFirst()).enumerated().first { !precedes($0.element.0, $0.element.1) }
                .map { $0.offset + 1 }
        }
        let byLayer = firstAstray { ($0.layer, $0.role.rawValue) < ($1.layer, $1.role.rawValue) }
        let byRole = firstAstray { ($0.role.rawValue, $0.layer) < ($1.role.rawValue, $1.layer) }
        guard let astray = byLayer, grouping != .rolesApart || byRole != nil else { return }
        // Of two orders that may be meant the one that is kept longer.
        let index = grouping == .rolesApart ? max(astray, byRole ?? 0) : astray
        func name(_ tensor: WireTensor) -> String { "the \(tensor.role) of layer \(tensor.layer)" }
        throw .invalid(
            field: "geometry.tensors[\(index)]",
            "\(name(tensors[index])) stands after \(name(tensors[index - 1])): list the tensors layer by layer, in each key, "
                + "value, latent" + (grouping == .rolesApart ? ", or all keys, then all values, then all latents" : "")
                + ", and fill pages as layout.grouping says")
    }

    private func rotary(of tensor: WireTensor) throws(CodecError) -> Rotary? {
        guard let style = Rotary.Style(rawValue: tensor.rotaryStyle.rawValue) else {
            guard tensor.ropeTable == WireTensor.noTable else {
                throw .invalid(field: "geometry.ropeTable", "a tensor without rotation names a table")
            }
            return nil
        }
        guard Int(tensor.ropeTable) < ropeTables.count else {
            throw .invalid(field: "geometry.ropeTable", "no table \(tensor.ropeTable) among \(ropeTables.count)")
        }
        return Rotary(
            style: style, offset: Int(tensor.rotaryOffset), dims: Int(tensor.rotaryDims),
            inverseFrequencies: ropeTables[Int(tensor.ropeTable)])
    }
}

extension VerifyReply {
    /// The store's figures.
    init(_ progress: VerifyProgress) {
        self.init(
            checked: progress.checked, total: progress.total, bytes: progress.bytes, corrupt: progress.corrupt,
            unreadable: progress.unreadable)
    }
}

extension WireError {
    /// A codec's complaint as an answer; `field` is named when the codec names none.
    init(codec error: CodecError, field: String) {
        switch error {
        case .invalid(let name, let text): self.init(.invalidField, field: name, text)
        case .mismatch(let text): self.init(.geometryMismatch, field: field, text)
        case .unsupported(let text): self.init(.invalidField, field: field, text)
        case .corrupt(let text): self.init(.internalError, field: field, text)
        }
    }
}
