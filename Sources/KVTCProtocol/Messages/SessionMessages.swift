// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVTCModel

/// The first request of a connection.
public struct HelloRequest: WireRequest {
    public typealias Reply = HelloReply
    public static let opcode = Opcode.hello

    /// The lowest version the client speaks.
    public var minVersion: UInt16 = 0
    /// The highest version the client speaks.
    public var maxVersion: UInt16 = 0
    /// Feature bits the client would use.
    public var features: UInt32 = 0
    /// A name for logs.
    public var client = ""

    public init() {}

    public init(
        minVersion: UInt16 = Wire.version, maxVersion: UInt16 = Wire.version,
        features: UInt32 = Wire.featureArenas | Wire.featureStreaming, client: String
    ) {
        self.minVersion = minVersion
        self.maxVersion = maxVersion
        self.features = features
        self.client = client
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("minVersion", &minVersion)
        try coder.field("maxVersion", &maxVersion)
        try coder.field("features", &features)
        try coder.field("client", &client)
    }
}

/// What the daemon speaks and allows.
public struct HelloReply: WireMessage {
    /// The version both speak.
    public var version: UInt16 = 0
    /// The feature bits both know.
    public var features: UInt32 = 0
    /// A random number, new at every start of the daemon: session, arena and lease numbers end with it.
    public var instance: UInt64 = 0
    /// The largest body of a request, in bytes.
    public var maxBody: UInt32 = 0
    /// How many requests may be unanswered at a time.
    public var maxInFlight: UInt32 = 0
    /// The largest arena, in bytes.
    public var maxArena: UInt64 = 0
    /// A name and version for logs.
    public var server = ""

    public init() {}

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

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("version", &version)
        try coder.field("features", &features)
        try coder.field("instance", &instance)
        try coder.field("maxBody", &maxBody)
        try coder.field("maxInFlight", &maxInFlight)
        try coder.field("maxArena", &maxArena)
        try coder.field("server", &server)
    }
}

/// Starts a token stream, on a connection that did not agree on ``Wire/featureIdentity``.
public struct OpenSessionRequest: WireRequest {
    public typealias Reply = OpenSessionReply
    public static let opcode = Opcode.openSession

    /// A name for logs and status.
    public var name = ""
    /// The 32 bytes naming a profile, or none for a session without.
    public var profile: [UInt8] = []
    /// The tensors of the cache in the order of the page; none: those of the profile.
    public var tensors: [TensorGeometry] = []
    /// How pages lie in the worker's memory.
    public var layout = PageLayout()
    /// Tokens of a full page, 16…1024.
    public var pageTokens: UInt32 = 0
    /// What the session wants for its pages.
    public var policy = Policy()

    public init() {}

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

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("name", &name)
        try coder.field("profile", &profile)
        try coder.check("profile", profile.isEmpty || profile.count == 32) {
            "\(profile.count) bytes long, not 0 or 32"
        }
        try coder.field("geometry", &tensors)
        try coder.message("layout", &layout)
        try coder.field("pageTokens", &pageTokens)
        try coder.message("policy", &policy)
    }
}

/// The same where both sides said ``Wire/featureIdentity``.
public struct OpenIdentifiedSessionRequest: WireRequest {
    public typealias Reply = OpenSessionReply
    public static let opcode = Opcode.openSession
    /// The longest identity, in bytes.
    public static let maximumIdentity = 4096

    public var session = OpenSessionRequest()
    /// What keys and values depend on besides the token ids: pages of another identity are never found. Empty for none.
    public var identity: [UInt8] = []

    public init() {}

    public init(_ session: OpenSessionRequest, identity: [UInt8]) {
        (self.session, self.identity) = (session, identity)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try session.fields(&coder)
        try coder.field("identity", &identity)
        try coder.check("identity", identity.count <= Self.maximumIdentity) {
            "\(identity.count) bytes; at most \(Self.maximumIdentity): send a digest"
        }
    }
}

/// The number of the new session.
public struct OpenSessionReply: WireMessage {
    /// Names the session in later requests, from any connection of the same tenant.
    public var session: UInt32 = 0
    /// The profile in use, or none.
    public var profile: [UInt8] = []
    /// Bytes of one token over all tensors; a page is this times its tokens.
    public var tokenBytes: UInt64 = 0

    public init() {}

    public init(session: UInt32, profile: [UInt8], tokenBytes: UInt64) {
        (self.session, self.profile, self.tokenBytes) = (session, profile, tokenBytes)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("profile", &profile)
        try coder.field("tokenBytes", &tokenBytes)
    }
}
