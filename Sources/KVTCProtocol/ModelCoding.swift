import KVTCModel

extension WireError {
    /// A complaint about a value of a message.
    public init(_ error: ModelError) { self.init(.invalidField, field: error.field, error.message) }
}

// A list of tensors travels as rows of 14 bytes, then the tables of frequencies that the rows refer to.
private enum TensorRow {
    static let byteCount = 14
    /// Style of tensors that are not rotated.
    static let noStyle: UInt8 = 0
    static let noTable: UInt16 = 0xFFFF
}

extension ByteWriter {
    mutating func write(tensors: [TensorGeometry]) {
        // What 16 bits do not hold goes out as the largest number, which is above every limit.
        func short(_ value: Int) -> UInt16 { UInt16(exactly: value) ?? .max }
        let ropes = RopeTables(of: tensors)
        write(list: Array(zip(tensors, ropes.indices))) { row, writer in
            let (tensor, table) = row
            writer.write(short(tensor.layer))
            writer.write(tensor.role.rawValue)
            writer.write(tensor.rotary?.style.rawValue ?? TensorRow.noStyle)
            for value in [tensor.heads, tensor.headDim, tensor.rotary?.offset ?? 0, tensor.rotary?.dims ?? 0] {
                writer.write(short(value))
            }
            writer.write(table.map(short) ?? TensorRow.noTable)
        }
        write(list: ropes.tables) { table, writer in writer.write(list: table) { $1.write($0) } }
    }
}

extension ByteReader {
    /// Unknown roles and styles and tables that are not there are errors; shapes are judged by `Geometry`.
    mutating func readTensors() throws(WireError) -> [TensorGeometry] {
        var tables: [UInt16] = []
        var tensors = try readList("geometry.tensors", itemBytes: TensorRow.byteCount) { r, _ throws(WireError) in
            func short(_ field: String) throws(WireError) -> Int { Int(try r.readUInt16("geometry.tensors.\(field)")) }
            let layer = try short("layer")
            let role: Role = try r.readCase("geometry.tensors.role")
            let style: Rotary.Style? = try r.readCase("geometry.tensors.rotaryStyle", none: TensorRow.noStyle)
            let (heads, headDim) = (try short("heads"), try short("headDim"))
            let (offset, dims) = (try short("rotaryOffset"), try short("rotaryDims"))
            tables.append(try r.readUInt16("geometry.tensors.ropeTable"))
            let rotary = style.map { Rotary(style: $0, offset: offset, dims: dims, inverseFrequencies: []) }
            return TensorGeometry(layer: layer, role: role, heads: heads, headDim: headDim, rotary: rotary)
        }
        let frequencies = try readList("geometry.ropeTables", itemBytes: 4) { r, _ throws(WireError) in
            try r.readList("geometry.ropeTables", itemBytes: 4) { r, _ throws(WireError) in
                try r.readFloat("geometry.ropeTables")
            }
        }
        for (index, table) in tables.enumerated() {
            func refuse(_ message: String) -> WireError {
                WireError(.invalidField, field: "geometry.ropeTable", message)
            }
            guard tensors[index].rotary != nil else {
                guard table == TensorRow.noTable else { throw refuse("a tensor without rotation names a table") }
                continue
            }
            guard Int(table) < frequencies.count else { throw refuse("no table \(table) among \(frequencies.count)") }
            tensors[index].rotary?.inverseFrequencies = frequencies[Int(table)]
        }
        return tensors
    }
}

extension PageLayout: WireMessage {
    /// Appends four bytes.
    public func encode(to writer: inout ByteWriter) {
        writer.write(element.rawValue)
        writer.write(order.rawValue)
        writer.write(grouping.rawValue)
        writer.write(valueTransposed ? UInt8(1) : 0)
    }

    /// Reads four bytes; unknown values are errors.
    public init(from reader: inout ByteReader) throws(WireError) {
        self.init(
            element: try reader.readCase("layout.element"), order: try reader.readCase("layout.order"),
            grouping: try reader.readCase("layout.grouping"))
        let flags = try reader.readUInt8("layout.flags")
        guard flags & ~1 == 0 else { throw WireError(.invalidField, field: "layout.flags", "unknown bits in \(flags)") }
        valueTransposed = flags & 1 != 0
    }
}
