import KVTCModel

/// The first request of a connection.
public struct HelloRequest: WireRequest {
    /// What is answered.
    public typealias Reply = HelloReply
    /// The number of the request.
    public static let opcode = Opcode.hello

    /// The lowest version the client speaks.
    public var minVersion: UInt16
    /// The highest version the client speaks.
    public var maxVersion: UInt16
    /// Feature bits the client would use.
    public var features: UInt32
    /// A name for logs.
    public var client: String

    /// A greeting with what the client speaks.
    public init(
        minVersion: UInt16 = Wire.version, maxVersion: UInt16 = Wire.version,
        features: UInt32 = Wire.featureArenas | Wire.featureStreaming, client: String
    ) {
        self.minVersion = minVersion
        self.maxVersion = maxVersion
        self.features = features
        self.client = client
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(minVersion)
        writer.write(maxVersion)
        writer.write(features)
        writer.write(client)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        minVersion = try reader.readUInt16("minVersion")
        maxVersion = try reader.readUInt16("maxVersion")
        features = try reader.readUInt32("features")
        client = try reader.readString("client")
    }
}

/// What the daemon speaks and allows.
public struct HelloReply: WireMessage {
    /// The version both speak.
    public var version: UInt16
    /// The feature bits both know.
    public var features: UInt32
    /// A random number, new at every start of the daemon: session, arena and lease numbers end with it.
    public var instance: UInt64
    /// The largest body of a request, in bytes.
    public var maxBody: UInt32
    /// How many requests may be unanswered at a time.
    public var maxInFlight: UInt32
    /// The largest arena, in bytes.
    public var maxArena: UInt64
    /// A name and version for logs.
    public var server: String

    /// A greeting with the daemon's limits.
    public init(
        version: UInt16, features: UInt32, instance: UInt64, maxBody: UInt32, maxInFlight: UInt32, maxArena: UInt64,
        server: String
    ) {
        self.version = version
        self.features = features
        self.instance = instance
        self.maxBody = maxBody
        self.maxInFlight = maxInFlight
        self.maxArena = maxArena
        self.server = server
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(version)
        writer.write(features)
        writer.write(instance)
        writer.write(maxBody)
        writer.write(maxInFlight)
        writer.write(maxArena)
        writer.write(server)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        version = try reader.readUInt16("version")
        features = try reader.readUInt32("features")
        instance = try reader.readUInt64("instance")
        maxBody = try reader.readUInt32("maxBody")
        maxInFlight = try reader.readUInt32("maxInFlight")
        maxArena = try reader.readUInt64("maxArena")
        server = try reader.readString("server")
    }
}

/// Starts a token stream, on a connection that did not agree on ``Wire/featureIdentity``.
public struct OpenSessionRequest: WireRequest {
    /// What is answered.
    public typealias Reply = OpenSessionReply
    /// The number of the request.
    public static let opcode = Opcode.openSession

    /// A name for logs and status.
    public var name: String
    /// The 32 bytes naming a profile, or none for a session without.
    public var profile: [UInt8]
    /// The tensors of the cache in the order of the page; none: those of the profile.
    public var tensors: [TensorGeometry]
    /// How pages lie in the worker's memory.
    public var layout: PageLayout
    /// Tokens of a full page, 16…1024.
    public var pageTokens: UInt32
    /// What the session wants for its pages.
    public var policy: Policy

    /// A request with the given shape and policy.
    public init(
        name: String, profile: [UInt8] = [], tensors: [TensorGeometry] = [], layout: PageLayout,
        pageTokens: UInt32 = 64, policy: Policy
    ) {
        self.name = name
        self.profile = profile
        self.tensors = tensors
        self.layout = layout
        self.pageTokens = pageTokens
        self.policy = policy
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(name)
        writer.write(profile)
        writer.write(tensors: tensors)
        layout.encode(to: &writer)
        writer.write(pageTokens)
        policy.encode(to: &writer)
    }

    /// Reads the fields in wire order; a profile of other than 0 or 32 bytes is an error.
    public init(from reader: inout ByteReader) throws(WireError) {
        name = try reader.readString("name")
        profile = Array(try reader.readBytes("profile"))
        guard profile.isEmpty || profile.count == 32 else {
            throw WireError(.invalidField, field: "profile", "\(profile.count) bytes long, not 0 or 32")
        }
        tensors = try reader.readTensors()
        layout = try PageLayout(from: &reader)
        pageTokens = try reader.readUInt32("pageTokens")
        policy = try Policy(from: &reader)
    }
}

/// The same where both sides said ``Wire/featureIdentity``.
public struct OpenIdentifiedSessionRequest: WireRequest {
    /// What is answered.
    public typealias Reply = OpenSessionReply
    /// The number of the request.
    public static let opcode = Opcode.openSession
    /// The longest identity, in bytes.
    public static let maximumIdentity = 4096

    /// The session.
    public var session: OpenSessionRequest
    /// What keys and values depend on besides the token ids: pages of another identity are never found. Empty for none.
    public var identity: [UInt8]

    /// A request for a session of an identity.
    public init(_ session: OpenSessionRequest, identity: [UInt8]) {
        self.session = session
        self.identity = identity
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        session.encode(to: &writer)
        writer.write(identity)
    }

    /// Reads the fields in wire order; an identity above the limit is an error.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try OpenSessionRequest(from: &reader)
        identity = Array(try reader.readBytes("identity"))
        guard identity.count <= Self.maximumIdentity else {
            throw WireError(
                .invalidField, field: "identity",
                "\(identity.count) bytes; at most \(Self.maximumIdentity): send a digest")
        }
    }
}

/// The number of the new session.
public struct OpenSessionReply: WireMessage {
    /// Names the session in later requests, from any connection of the same tenant.
    public var session: UInt32
    /// The profile in use, or none.
    public var profile: [UInt8]
    /// Bytes of one token over all tensors; a page is this times its tokens.
    public var tokenBytes: UInt64

    /// An answer with the session's number.
    public init(session: UInt32, profile: [UInt8], tokenBytes: UInt64) {
        self.session = session
        self.profile = profile
        self.tokenBytes = tokenBytes
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(profile)
        writer.write(tokenBytes)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        profile = Array(try reader.readBytes("profile"))
        tokenBytes = try reader.readUInt64("tokenBytes")
    }
}
