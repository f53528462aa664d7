/// The numbers of the requests; a reply has the same number with the top bit set. Numbers are never reused.
public enum Opcode: UInt16, Sendable, CaseIterable {
    /// Version and feature negotiation; must come first.
    case hello = 1
    /// Ask for a shared-memory arena.
    case arena = 2
    /// Start a token stream.
    case openSession = 3
    /// Change a session's policy.
    case setPolicy = 4
    /// Ask which pages are there.
    case lookup = 5
    /// Hand pages over.
    case push = 6
    /// Get pages back.
    case pull = 7
    /// End a lease.
    case release = 8
    /// Bring pages from disk to RAM.
    case prefetch = 9
    /// Change pin and time to live of pages.
    case touch = 10
    /// Forget pages.
    case drop = 11
    /// End a token stream.
    case closeSession = 12
    /// Ask how the daemon is.
    case status = 13
    /// Make pages durable.
    case flush = 14
    /// List or load profiles.
    case profile = 15
    /// Measure the way there and back.
    case ping = 16
    /// Read a session's policy.
    case getPolicy = 17
    /// Read every page and check it.
    case verify = 18
    /// Cut a token stream's end.
    case truncate = 19
    /// Hand a profile over.
    case storeProfile = 20
    /// Ask which pages are there, and how they are stored.
    case lookupBlocks = 21
    /// Get pages back as they are stored.
    case pullBlocks = 22
    /// Hand over pages that the worker coded.
    case pushBlocks = 23
    /// Ask for the file of a profile.
    case profileFile = 24
    /// Take no more pages, or take them again.
    case drain = 25
    /// Ask where pages are and why.
    case explain = 26
    /// Ask or clear what a fleet shares.
    case shared = 27

    /// The bit that tells replies from requests.
    public static let replyBit: UInt16 = 0x8000
}

/// Constants of version 1 of the protocol.
public enum Wire {
    /// The bytes "KVT1" read as a little-endian number.
    public static let magic: UInt32 = 0x3154_564B
    /// The only version spoken so far.
    public static let version: UInt16 = 1
    /// The largest body of a request or a reply, in bytes.
    public static let maximumBody = 64 << 20
    /// "No value" in fields of 32 bits.
    public static let none: UInt32 = 0xFFFF_FFFF
    /// Feature bit: arenas of shared memory.
    public static let featureArenas: UInt32 = 1
    /// Feature bit: pulls that stream layer by layer.
    public static let featureStreaming: UInt32 = 2
    /// Feature bit: OPEN_SESSION carries an identity.
    public static let featureIdentity: UInt32 = 4
    /// Feature bit: pages travel as they are stored, and profiles as files.
    public static let featureBlocks: UInt32 = 8
    /// Feature bit: policies say when pages are coded.
    public static let featureCode: UInt32 = 16
    /// Feature bit: EXPLAIN is known.
    public static let featureExplain: UInt32 = 32
    /// Feature bit: pages can be with other machines.
    public static let featureShared: UInt32 = 64
    /// All feature bits of this release.
    public static let features =
        featureArenas | featureStreaming | featureIdentity | featureBlocks | featureCode | featureExplain
        | featureShared
    /// Status bit: more parts of this reply follow.
    public static let more: UInt32 = 0x8000_0000
}

/// The 24 bytes in front of every body.
public struct FrameHeader: Hashable, Sendable {
    /// The size of the header in bytes.
    public static let byteCount = 24

    /// The request's opcode, with ``Opcode/replyBit`` set in a reply.
    public var opcode: UInt16
    /// Chosen by the client, copied into every part of the reply.
    public var id: UInt64
    /// Zero in a request; in a reply zero or an ``ErrorCode``, and ``Wire/more`` when parts follow.
    public var status: UInt32
    /// Bytes of body that follow.
    public var bodyLength: UInt32

    /// A header with the given fields.
    public init(opcode: UInt16, id: UInt64, status: UInt32, bodyLength: UInt32) {
        self.opcode = opcode
        self.id = id
        self.status = status
        self.bodyLength = bodyLength
    }

    /// Whether further parts of the same reply follow.
    public var hasMore: Bool { status & Wire.more != 0 }

    /// The error number of a reply, without the ``Wire/more`` bit.
    public var errorStatus: UInt32 { status & ~Wire.more }

    /// The 24 bytes.
    public var encoded: [UInt8] {
        var writer = ByteWriter(reserving: FrameHeader.byteCount)
        writer.write(Wire.magic)
        writer.write(Wire.version)
        writer.write(opcode)
        writer.write(id)
        writer.write(status)
        writer.write(bodyLength)
        return writer.bytes
    }

    /// Reads 24 bytes, taking magic, version and length at face value: the id of a bad frame is needed for the answer.
    public static func parse(_ bytes: [UInt8]) throws(WireError) -> (header: FrameHeader, fault: WireError?) {
        var reader = ByteReader(bytes)
        let magic: UInt32 = try reader.readInteger("magic")
        let version: UInt16 = try reader.readInteger("version")
        let header = FrameHeader(
            opcode: try reader.readInteger("opcode"), id: try reader.readInteger("id"),
            status: try reader.readInteger("status"), bodyLength: try reader.readInteger("bodyLength"))
        try reader.finish()
        if magic != Wire.magic {
            return (header, WireError(.badMagic, field: "magic", "the frame does not start with \"KVT1\""))
        }
        if version != Wire.version {
            return (
                header, WireError(.badVersion, field: "version", "\(version) is not spoken here, \(Wire.version) is")
            )
        }
        if header.bodyLength > UInt32(Wire.maximumBody) {
            return (
                header, WireError(.tooLarge, field: "bodyLength", "\(header.bodyLength) is over \(Wire.maximumBody)")
            )
        }
        return (header, nil)
    }
}
