import KVTCModel

extension WireError {
    /// A complaint about a value of a message.
    public init(_ error: ModelError) { self.init(.invalidField, field: error.field, error.message) }
}

extension FieldCoder {
    /// A list of tensors: rows of 14 bytes, then the tables of rotation frequencies that the rows refer to. Shapes are judged by
    /// `Geometry`.
    mutating func field(_ name: String, _ tensors: inout [TensorGeometry]) throws(WireError) {
        try group(name) { coder throws(WireError) in
            let ropes = RopeTables(of: tensors)
            var frequencies = ropes.tables
            var rows = zip(tensors, ropes.indices).map { tensor, table in
                TensorRow(tensor: tensor, ropeTable: table.map { UInt16(exactly: $0) ?? .max } ?? TensorRow.noTable)
            }
            try coder.list("\(name).tensors", &rows)
            let tables = "\(name).ropeTables"
            try coder.list(tables, of: "list<f32>", leastBytes: 4, blank: [], &frequencies) {
                coder, table throws(WireError) in
                try coder.list(tables, of: "f32", leastBytes: 4, blank: 0, &table) { coder, value throws(WireError) in
                    try coder.field(tables, &value)
                }
            }
            guard coder.isReading else { return }
            tensors = []
            tensors.reserveCapacity(rows.count)
            for row in rows { tensors.append(try row.tensor(among: frequencies)) }
        }
    }
}

/// A tensor on the wire: its table of frequencies is one that stands behind the list.
private struct TensorRow: WireItem {
    static let typeName = "tensor"
    static let byteCount = 14
    static let noTable: UInt16 = 0xFFFF
    private static let noStyle: UInt8 = 0

    var tensor = TensorGeometry(layer: 0, role: .key, heads: 0, headDim: 0)
    var ropeTable = noTable

    mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        var style = tensor.rotary?.style
        var rotary = tensor.rotary ?? Rotary(style: .interleaved, dims: 0, inverseFrequencies: [])
        try coder.short("geometry.tensors.layer", &tensor.layer)
        try coder.field("geometry.tensors.role", &tensor.role)
        try coder.field("geometry.tensors.rotaryStyle", &style, none: Self.noStyle)
        try coder.short("geometry.tensors.heads", &tensor.heads)
        try coder.short("geometry.tensors.headDim", &tensor.headDim)
        try coder.short("geometry.tensors.rotaryOffset", &rotary.offset)
        try coder.short("geometry.tensors.rotaryDims", &rotary.dims)
        try coder.field("geometry.tensors.ropeTable", &ropeTable)
        guard coder.isReading else { return }
        tensor.rotary = style.map { style in
            rotary.style = style
            return rotary
        }
    }

    /// The tensor with its table.
    func tensor(among tables: [[Float]]) throws(WireError) -> TensorGeometry {
        func refuse(_ message: String) -> WireError { WireError(.invalidField, field: "geometry.ropeTable", message) }
        var result = tensor
        if result.rotary == nil {
            guard ropeTable == Self.noTable else { throw refuse("a tensor without rotation names a table") }
        } else {
            guard Int(ropeTable) < tables.count else { throw refuse("no table \(ropeTable) among \(tables.count)") }
            result.rotary?.inverseFrequencies = tables[Int(ropeTable)]
        }
        return result
    }
}

extension PageLayout: WireMessage {
    /// The plainest layout.
    public init() { self.init(element: .f16) }

    /// Four bytes.
    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("layout.element", &element)
        try coder.field("layout.order", &order)
        try coder.field("layout.grouping", &grouping)
        var flags: UInt8 = valueTransposed ? 1 : 0
        try coder.flags("layout.flags", known: 1, &flags)
        valueTransposed = flags & 1 != 0
    }
}

extension PositionRange: WireItem {
    static let typeName = "range"
    static let byteCount = 8

    /// A range that holds no position.
    public init() { self.init(begin: 0, end: 0) }

    /// Both ends.
    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("range.begin", &begin)
        try coder.field("range.end", &end)
        try coder.check("range", begin < end) { "\(begin)..<\(end) holds no position" }
    }
}

extension Policy: WireMessage {
    private enum Flag {
        static let pin: UInt8 = 1
        static let near: UInt8 = 2
        static let distortionLimit: UInt8 = 4
        static let dropsOutliers: UInt8 = 8
        /// Two bits: 0 where that is for the daemon to say, else the place of the case among these.
        static let code: UInt8 = 0x30
        static let codes: [CodingTime] = [.atOnce, .underPressure, .idle]
        static let all: UInt8 = 0x3F
    }

    /// What a session gets that says nothing.
    public init() { self.init(sink: 4) }

    /// Bounds that are nil leave only their flag unset.
    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("policy.sink", &sink)
        try coder.field("policy.window", &window)
        try coder.field("policy.mode", &mode)
        try coder.check("policy.mode", Policy.modes.contains(mode)) { "\(mode.rawValue) is not a known value" }
        try coder.field("policy.qualityKind", &qualityKind)
        try coder.field("policy.priority", &priority)
        var flags =
            (pin ? Flag.pin : 0) | (near != nil ? Flag.near : 0) | (distortionLimit != nil ? Flag.distortionLimit : 0)
            | (keepsOutliers ? 0 : Flag.dropsOutliers) | (code.map(Policy.bits) ?? 0)
        try coder.flags("policy.flags", known: Flag.all, &flags)
        pin = flags & Flag.pin != 0
        keepsOutliers = flags & Flag.dropsOutliers == 0
        let number = Int((flags & Flag.code) >> 4)
        code = number == 0 ? nil : Flag.codes[number - 1]
        try coder.field("policy.quality", &quality)
        try coder.check("policy.quality", quality.isFinite && quality >= 0) {
            "\(quality) is not a finite, non-negative number"
        }
        try coder.field("policy.ttlSeconds", &ttlSeconds)
        try coder.list("policy.protected", &protected)
        try Policy.bound(&coder, "policy.near", isThere: flags & Flag.near != 0, &near)
        try Policy.bound(
            &coder, "policy.distortionLimit", isThere: flags & Flag.distortionLimit != 0, &distortionLimit)
    }

    private static func bits(_ code: CodingTime) -> UInt8 { UInt8(Flag.codes.firstIndex(of: code)! + 1) << 4 }

    private static func bound(
        _ coder: inout FieldCoder, _ name: String, isThere: Bool, _ value: inout Float?
    ) throws(WireError) {
        try coder.optional(name, isThere: isThere, &value)
        try coder.check(name, value.map { $0 > 0 && $0 < 1 } ?? true) { "\(value ?? 0) is not above 0 and below 1" }
    }
}
