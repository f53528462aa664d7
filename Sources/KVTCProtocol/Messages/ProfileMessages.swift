// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// What to do about profiles.
public enum ProfileAction: UInt8, Sendable, CaseIterable {
    /// Say which ones are loaded.
    case list = 0
    /// Load one from the daemon's profile directory.
    case load = 1
}

/// Lists profiles or loads one.
public struct ProfileRequest: WireRequest {
    public typealias Reply = JSONReply
    public static let opcode = Opcode.profile

    /// What to do.
    public var action = ProfileAction.list
    /// A file name in the profile directory; empty for a list.
    public var name = ""

    public init() {}

    public init(action: ProfileAction, name: String = "") {
        (self.action, self.name) = (action, name)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("action", &action)
        try coder.field("name", &name)
    }
}

/// Hands the daemon a profile file, which lies in an arena; for administrators.
public struct StoreProfileRequest: WireRequest {
    public typealias Reply = JSONReply
    public static let opcode = Opcode.storeProfile

    /// The arena that holds the file.
    public var arena: UInt32 = 0
    /// Where the file begins in it.
    public var offset: UInt64 = 0
    /// Bytes of the file.
    public var length: UInt64 = 0
    /// The file name that it gets in the daemon's profile directory.
    public var name = ""

    public init() {}

    public init(arena: UInt32, offset: UInt64, length: UInt64, name: String) {
        (self.arena, self.offset, self.length, self.name) = (arena, offset, length, name)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("arena", &arena)
        try coder.field("offset", &offset)
        try coder.field("length", &length)
        try coder.field("name", &name)
    }
}
