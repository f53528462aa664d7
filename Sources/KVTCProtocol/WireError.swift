/// The numbers of the errors a reply can carry. Numbers are never reused.
public enum ErrorCode: UInt32, Sendable, CaseIterable {
    /// The frame does not start with "KVT1"; the connection is closed.
    case badMagic = 1
    /// The frame's or HELLO's version is not spoken here; the connection is closed.
    case badVersion = 2
    /// No request has this opcode.
    case unknownOpcode = 3
    /// The body is longer than the negotiated limit; the connection is closed.
    case tooLarge = 4
    /// The body ends before its last field.
    case truncated = 5
    /// Bytes are left over after the last field.
    case trailingBytes = 6
    /// A field holds a value that is not allowed.
    case invalidField = 7
    /// Something came before HELLO.
    case helloRequired = 8
    /// No session of this tenant has the number.
    case unknownSession = 9
    /// The daemon holds no such profile.
    case unknownProfile = 10
    /// Session and profile, or session and page, disagree about shapes.
    case geometryMismatch = 11
    /// The connection has no arena with the number.
    case unknownArena = 12
    /// An offset or length lies outside the arena or the inline bytes.
    case arenaBounds = 13
    /// A limit of the daemon is reached.
    case limitExceeded = 14
    /// Pages of a session go backwards or overlap.
    case positionConflict = 15
    /// No lease of this tenant has the number.
    case unknownLease = 16
    /// The peer may not do this.
    case forbidden = 17
    /// The disk failed.
    case ioError = 18
    /// The daemon is stopping.
    case shuttingDown = 19
    /// A defect of the daemon.
    case internalError = 20
    /// The peer was too slow.
    case timeout = 21

    /// Whether frame boundaries are lost, so that the connection cannot go on.
    public var breaksFraming: Bool { self == .badMagic || self == .badVersion || self == .tooLarge }
}

/// An error as it travels: a number for programs, the field at fault and a sentence for people.
public struct WireError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What kind of error it is.
    public var code: ErrorCode
    /// The path of the field at fault, such as `policy.window`; empty when no field is.
    public var field: String
    /// What is wrong and, where it helps, what would be right.
    public var message: String

    /// An error with its field and explanation.
    public init(_ code: ErrorCode, field: String = "", _ message: String) {
        self.code = code
        self.field = field
        self.message = message
    }

    /// One line with the name of the code, the field and the message.
    public var description: String { field.isEmpty ? "\(code): \(message)" : "\(code) (\(field)): \(message)" }

    /// The body of the error reply.
    public func encodedBody() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(field)
        writer.write(message)
        return writer.bytes
    }

    /// Reads the body of a reply whose status is not zero. An unknown number reads as ``ErrorCode/internalError``.
    public init(status: UInt32, body: [UInt8]) throws(WireError) {
        var reader = ByteReader(body)
        field = try reader.readString("field")
        message = try reader.readString("message")
        try reader.finish()
        if let known = ErrorCode(rawValue: status) {
            code = known
        } else {
            code = .internalError
            message = "status \(status): \(message)"
        }
    }
}
