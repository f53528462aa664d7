/// What a tensor of the cache holds.
public enum WireRole: UInt8, Sendable, CaseIterable {
    /// Keys.
    case key = 0
    /// Values.
    case value = 1
    /// A latent that stands for both (multi-head latent attention).
    case latent = 2
}

/// Which dimensions of a head rotate together.
public enum WireRotaryStyle: UInt8, Sendable, CaseIterable {
    /// No rotation is in the cached values.
    case none = 0
    /// Neighbours: (0,1), (2,3), …
    case interleaved = 1
    /// First half with second half.
    case halfSplit = 2
}

/// One tensor of the cache, for one token.
public struct WireTensor: WireMessage {
    /// "No table of frequencies" in ``ropeTable``.
    public static let noTable: UInt16 = 0xFFFF
    static let byteCount = 14

    /// The model layer it belongs to, from 0.
    public var layer: UInt16
    /// Keys, values or a latent.
    public var role: WireRole
    /// How it was rotated.
    public var rotaryStyle: WireRotaryStyle
    /// How many heads it has.
    public var heads: UInt16
    /// Values of one head.
    public var headDim: UInt16
    /// The first rotated dimension of a head.
    public var rotaryOffset: UInt16
    /// How many dimensions of a head are rotated; even.
    public var rotaryDims: UInt16
    /// Which of the geometry's tables has the inverse frequencies, or ``noTable``.
    public var ropeTable: UInt16

    /// A tensor with the given shape and rotation.
    public init(
        layer: UInt16, role: WireRole, heads: UInt16, headDim: UInt16, rotaryStyle: WireRotaryStyle = .none,
        rotaryOffset: UInt16 = 0, rotaryDims: UInt16 = 0, ropeTable: UInt16 = WireTensor.noTable
    ) {
        self.layer = layer
        self.role = role
        self.rotaryStyle = rotaryStyle
        self.heads = heads
        self.headDim = headDim
        self.rotaryOffset = rotaryOffset
        self.rotaryDims = rotaryDims
        self.ropeTable = ropeTable
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(layer)
        writer.write(role.rawValue)
        writer.write(rotaryStyle.rawValue)
        writer.write(heads)
        writer.write(headDim)
        writer.write(rotaryOffset)
        writer.write(rotaryDims)
        writer.write(ropeTable)
    }

    /// Reads the fields in wire order; unknown roles and styles are errors, shapes are judged by the daemon.
    public init(from reader: inout ByteReader) throws(WireError) {
        layer = try reader.readUInt16("geometry.tensors.layer")
        role = try reader.readCase("geometry.tensors.role")
        rotaryStyle = try reader.readCase("geometry.tensors.rotaryStyle")
        heads = try reader.readUInt16("geometry.tensors.heads")
        headDim = try reader.readUInt16("geometry.tensors.headDim")
        rotaryOffset = try reader.readUInt16("geometry.tensors.rotaryOffset")
        rotaryDims = try reader.readUInt16("geometry.tensors.rotaryDims")
        ropeTable = try reader.readUInt16("geometry.tensors.ropeTable")
    }
}

/// All tensors of a cache and their rotation frequencies.
public struct WireGeometry: WireMessage {
    /// The tensors in the order of the page; empty means "as in the profile".
    public var tensors: [WireTensor]
    /// Inverse frequencies in radians per position, one per rotated pair, for tensors to refer to.
    public var ropeTables: [[Float]]

    /// A geometry of the given tensors.
    public init(tensors: [WireTensor] = [], ropeTables: [[Float]] = []) {
        self.tensors = tensors
        self.ropeTables = ropeTables
    }

    /// Appends tensors, then tables.
    public func encode(to writer: inout ByteWriter) {
        writer.write(list: tensors) { $0.encode(to: &$1) }
        writer.write(list: ropeTables) { table, writer in writer.write(list: table) { $1.write($0) } }
    }

    /// Reads tensors, then tables.
    public init(from reader: inout ByteReader) throws(WireError) {
        tensors = try reader.readList("geometry.tensors", itemBytes: WireTensor.byteCount) { r, _ throws(WireError) in
            try WireTensor(from: &r)
        }
        ropeTables = try reader.readList("geometry.ropeTables", itemBytes: 4) { r, _ throws(WireError) in
            try r.readList("geometry.ropeTables", itemBytes: 4) { r, _ throws(WireError) in
                try r.readFloat("geometry.ropeTables")
            }
        }
    }
}

/// The number format of a page's elements.
public enum WireElement: UInt8, Sendable, CaseIterable {
    /// IEEE 754 half precision.
    case float16 = 1
    /// The upper half of a single-precision number.
    case bfloat16 = 2
    /// IEEE 754 single precision.
    case float32 = 3
    /// Eight bits, four of them exponent.
    case float8e4m3 = 4
    /// Eight bits, five of them exponent.
    case float8e5m2 = 5
}

/// Which index runs slowest in a page.
public enum WireOrder: UInt8, Sendable, CaseIterable {
    /// Tensor, then token, then head.
    case tensorTokenHead = 0
    /// Token, then tensor, then head.
    case tokenTensorHead = 1
    /// Tensor, then head, then token.
    case tensorHeadToken = 2
}

/// How keys and values lie beside each other.
public enum WireGrouping: UInt8, Sendable, CaseIterable {
    /// Keys of all layers, then values of all layers.
    case rolesApart = 0
    /// Keys and values of layer 0, of layer 1, …
    case layerPairs = 1
    /// Keys and values of one head side by side.
    case fusedHeads = 2
}

/// How a worker's pages lie in memory.
public struct WireLayout: WireMessage {
    /// The number format.
    public var element: WireElement
    /// The order of axes.
    public var order: WireOrder
    /// The order of tensors.
    public var grouping: WireGrouping
    /// Whether values lie with the token index running fastest.
    public var valueTransposed: Bool

    /// A layout with the given formats and orders.
    public init(
        element: WireElement, order: WireOrder = .tensorTokenHead, grouping: WireGrouping = .rolesApart,
        valueTransposed: Bool = false
    ) {
        self.element = element
        self.order = order
        self.grouping = grouping
        self.valueTransposed = valueTransposed
    }

    /// Appends four bytes.
    public func encode(to writer: inout ByteWriter) {
        writer.write(element.rawValue)
        writer.write(order.rawValue)
        writer.write(grouping.rawValue)
        writer.write(valueTransposed ? UInt8(1) : 0)
    }

    /// Reads four bytes; unknown values are errors.
    public init(from reader: inout ByteReader) throws(WireError) {
        element = try reader.readCase("layout.element")
        order = try reader.readCase("layout.order")
        grouping = try reader.readCase("layout.grouping")
        let flags = try reader.readUInt8("layout.flags")
        guard flags & ~1 == 0 else { throw WireError(.invalidField, field: "layout.flags", "unknown bits in \(flags)") }
        valueTransposed = flags & 1 != 0
    }
}
