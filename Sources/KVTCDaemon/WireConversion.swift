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
    /// The geometry in the codec's terms.
    func codecGeometry() throws(CodecError) -> Geometry {
        var converted: [TensorGeometry] = []
        converted.reserveCapacity(tensors.count)
        for tensor in tensors {
            converted.append(
                TensorGeometry(
                    layer: Int(tensor.layer), role: TensorRole(rawValue: tensor.role.rawValue) ?? .key,
                    heads: Int(tensor.heads), headDim: Int(tensor.headDim), rotary: try rotary(of: tensor)))
        }
        return try Geometry(tensors: converted)
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
