/// Goes over the fields of a message in wire order: reads them, writes them, or lists them.
///
/// A message says its fields once, in ``WireMessage/fields(_:)``; the coder that it is given knows what they are wanted for.
public struct FieldCoder {
    private enum Purpose { case reading, writing, listing }

    private let purpose: Purpose
    private var reader = ByteReader([])
    /// What has been written.
    private(set) var writer = ByteWriter(reserving: 0)
    /// What has been listed.
    private(set) var listed: [WireField] = []

    /// Reads a body.
    init(reading body: [UInt8]) {
        purpose = .reading
        reader = ByteReader(body)
    }

    private init(_ purpose: Purpose) { self.purpose = purpose }

    static func writing() -> FieldCoder {
        var coder = FieldCoder(.writing)
        coder.writer = ByteWriter()
        return coder
    }

    static func listing() -> FieldCoder { FieldCoder(.listing) }

    var isReading: Bool { purpose == .reading }

    /// Throws ``ErrorCode/trailingBytes`` unless everything was read.
    func finish() throws(WireError) { try reader.finish() }

    private mutating func field<Value>(
        _ name: String, _ type: @autoclosure () -> String, _ value: inout Value,
        read: (inout ByteReader) throws(WireError) -> Value, write: (inout ByteWriter, Value) -> Void
    ) throws(WireError) {
        switch purpose {
        case .reading: value = try read(&reader)
        case .writing: write(&writer, value)
        case .listing: listed.append(WireField(name, type()))
        }
    }

    // MARK: - Numbers, text and bytes

    mutating func field<Number: FixedWidthInteger & UnsignedInteger>(
        _ name: String, _ value: inout Number
    ) throws(WireError) {
        try field(name, "u\(Number.bitWidth)", &value) { reader throws(WireError) in
            try reader.readInteger(name)
        } write: {
            $0.write($1)
        }
    }

    /// Sixteen bits. What they do not hold goes out as the largest number, which is above every limit.
    mutating func short(_ name: String, _ value: inout Int) throws(WireError) {
        var number = UInt16(exactly: value) ?? .max
        try field(name, &number)
        if isReading { value = Int(number) }
    }

    /// NaN and infinities pass; the meaning decides about them.
    mutating func field(_ name: String, _ value: inout Float) throws(WireError) {
        try field(name, "f32", &value) { reader throws(WireError) in
            Float(bitPattern: try reader.readInteger(name))
        } write: {
            $0.write($1)
        }
    }

    mutating func field(_ name: String, _ value: inout String) throws(WireError) {
        try field(name, "str", &value) { reader throws(WireError) in
            try reader.readString(name)
        } write: {
            $0.write($1)
        }
    }

    mutating func field(_ name: String, _ value: inout [UInt8]) throws(WireError) {
        try field(name, "bytes", &value) { reader throws(WireError) in
            Array(try reader.readBytes(name))
        } write: {
            $0.write($1)
        }
    }

    /// The last field of a message: bytes that are not copied, because there may be many.
    mutating func payload(_ name: String, _ value: inout ArraySlice<UInt8>) throws(WireError) {
        try field(name, "bytes", &value) { reader throws(WireError) in
            try reader.readBytes(name)
        } write: {
            $0.write(payload: $1)
        }
    }

    mutating func field(_ name: String, _ value: inout PageKey) throws(WireError) {
        try field(name, "key", &value) { reader throws(WireError) in
            try reader.readKey(name)
        } write: {
            $0.write($1)
        }
    }

    // MARK: - Enumerations and flags

    /// One byte that must be a case of the enumeration.
    mutating func field<Case: RawRepresentable<UInt8>>(_ name: String, _ value: inout Case) throws(WireError) {
        try field(name, "u8", &value) { reader throws(WireError) in
            try FieldCoder.known(name, try reader.readInteger(name))
        } write: {
            $0.write($1.rawValue)
        }
    }

    /// The same, where one number stands for none of the cases.
    mutating func field<Case: RawRepresentable<UInt8>>(
        _ name: String, _ value: inout Case?, none: UInt8
    ) throws(WireError) {
        try field(name, "u8", &value) { reader throws(WireError) in
            let number: UInt8 = try reader.readInteger(name)
            return number == none ? nil : try FieldCoder.known(name, number)
        } write: {
            $0.write($1?.rawValue ?? none)
        }
    }

    /// Length-prefixed bytes that must each be a case of the enumeration.
    mutating func field<Case: RawRepresentable<UInt8>>(_ name: String, _ values: inout [Case]) throws(WireError) {
        try field(name, "bytes", &values) { reader throws(WireError) in
            var cases: [Case] = []
            let numbers = try reader.readBytes(name)
            cases.reserveCapacity(numbers.count)
            for number in numbers { cases.append(try FieldCoder.known(name, number)) }
            return cases
        } write: {
            $0.write($1.map(\.rawValue))
        }
    }

    private static func known<Case: RawRepresentable<UInt8>>(_ name: String, _ number: UInt8) throws(WireError) -> Case
    {
        guard let value = Case(rawValue: number) else {
            throw WireError(.invalidField, field: name, "\(number) is not a known value")
        }
        return value
    }

    /// A byte of flags, of which those outside of `known` must not be set.
    mutating func flags(_ name: String, known: UInt8, _ value: inout UInt8) throws(WireError) {
        try field(name, &value)
        try check(name, value & ~known == 0) { "unknown bits in \(value)" }
    }

    /// A number that is there where a flag before it says so.
    mutating func optional(_ name: String, isThere: Bool, _ value: inout Float?) throws(WireError) {
        guard isThere || purpose == .listing else {
            value = nil
            return
        }
        var number = value ?? 0
        try field(name, &number)
        value = number
    }

    // MARK: - Lists and messages inside of messages

    /// A counted list.
    mutating func list<Item>(
        _ name: String, of type: String, leastBytes: Int, blank: @autoclosure () -> Item, _ items: inout [Item],
        each: (inout FieldCoder, inout Item) throws(WireError) -> Void
    ) throws(WireError) {
        switch purpose {
        case .listing: listed.append(WireField(name, "list<\(type)>"))
        case .writing:
            writer.write(UInt32(items.count))
            for var item in items { try each(&self, &item) }
        case .reading:
            let count = try itemCount(name, leastBytes: leastBytes)
            items = []
            items.reserveCapacity(count)
            for _ in 0..<count {
                var item = blank()
                try each(&self, &item)
                items.append(item)
            }
        }
    }

    /// Keys lie as in memory: a request names thousands of them, and LOOKUP of 64 must cost little more than a round trip.
    mutating func list(_ name: String, _ keys: inout [PageKey]) throws(WireError) {
        switch purpose {
        case .listing: listed.append(WireField(name, "list<key>"))
        case .writing:
            writer.write(UInt32(keys.count))
            writer.write(keys)
        case .reading:
            let count = try itemCount(name, leastBytes: PageKey.byteCount)
            keys = try reader.readKeys(count, name)
        }
    }

    /// A count, checked against the smallest size that an item can have before anything is reserved, so that a hostile one costs
    /// nothing.
    private mutating func itemCount(_ name: String, leastBytes: Int) throws(WireError) -> Int {
        let count = Int(try reader.readInteger(name) as UInt32)
        guard count <= reader.remaining / leastBytes else {
            throw WireError(
                .truncated, field: name, "\(count) items do not fit into the \(reader.remaining) bytes left")
        }
        return count
    }

    mutating func list<Item: WireItem>(_ name: String, _ items: inout [Item]) throws(WireError) {
        guard purpose != .listing else {
            return listed.append(WireField(name, "list<\(Item.typeName)>", Item.fields))
        }
        try list(name, of: Item.typeName, leastBytes: Item.byteCount, blank: Item(), &items) {
            coder, item throws(WireError) in try item.fields(&coder)
        }
    }

    /// A group of fields with a name of its own.
    mutating func group(
        _ name: String, _ fields: (inout FieldCoder) throws(WireError) -> Void
    ) throws(WireError) {
        guard purpose == .listing else { return try fields(&self) }
        var coder = FieldCoder.listing()
        try fields(&coder)
        listed.append(WireField(name, name, coder.listed))
    }

    /// A message inside of another.
    mutating func message(_ name: String, _ message: inout some WireMessage) throws(WireError) {
        try group(name) { coder throws(WireError) in try message.fields(&coder) }
    }

    /// Refuses what was read where it is not allowed; what is written is the reader's to judge.
    func check(_ name: String, _ isAllowed: @autoclosure () -> Bool, _ message: () -> String) throws(WireError) {
        guard isReading, !isAllowed() else { return }
        throw WireError(.invalidField, field: name, message())
    }
}

/// A field as a list of a message's fields names it: the document's types, such as `u32` and `list<key>`.
public struct WireField: Hashable, Sendable {
    /// The path as errors name it.
    public let name: String
    /// The type, or the name of a group of fields.
    public let type: String
    /// The fields of a group, or of each item of a list.
    public let fields: [WireField]

    init(_ name: String, _ type: String, _ fields: [WireField] = []) {
        self.name = name
        self.type = type
        self.fields = fields
    }
}
