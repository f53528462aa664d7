/// What to do about profiles.
public enum ProfileAction: UInt8, Sendable, CaseIterable {
    /// Say which ones are loaded.
    case list = 0
    /// Load one from the daemon's profile directory.
    case load = 1
}

/// Lists profiles or loads one.
public struct ProfileRequest: WireRequest {
    /// What is answered.
    public typealias Reply = JSONReply
    /// The number of the request.
    public static let opcode = Opcode.profile

    /// What to do.
    public var action: ProfileAction
    /// A file name in the profile directory; empty for a list.
    public var name: String

    /// A request with the action.
    public init(action: ProfileAction, name: String = "") {
        self.action = action
        self.name = name
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(action.rawValue)
        writer.write(name)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        action = try reader.readCase("action")
        name = try reader.readString("name")
    }
}

/// Hands the daemon a profile file, which lies in an arena; for administrators.
public struct StoreProfileRequest: WireRequest {
    /// What is answered.
    public typealias Reply = JSONReply
    /// The number of the request.
    public static let opcode = Opcode.storeProfile

    /// The arena that holds the file.
    public var arena: UInt32
    /// Where the file begins in it.
    public var offset: UInt64
    /// Bytes of the file.
    public var length: UInt64
    /// The file name that it gets in the daemon's profile directory.
    public var name: String

    /// A request about a file in an arena.
    public init(arena: UInt32, offset: UInt64, length: UInt64, name: String) {
        self.arena = arena
        self.offset = offset
        self.length = length
        self.name = name
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(arena)
        writer.write(offset)
        writer.write(length)
        writer.write(name)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        arena = try reader.readUInt32("arena")
        offset = try reader.readUInt64("offset")
        length = try reader.readUInt64("length")
        name = try reader.readString("name")
    }
}
