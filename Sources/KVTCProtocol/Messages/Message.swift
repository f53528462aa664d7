/// A body that can be written and read.
public protocol WireMessage: Hashable, Sendable {
    /// A message that a reader is about to fill.
    init()
    /// Takes the coder over the fields in wire order: the one place that says what a message consists of.
    mutating func fields(_ coder: inout FieldCoder) throws(WireError)
}

extension WireMessage {
    /// The body.
    public var encodedBody: [UInt8] { written.bytes }

    /// The body, its payload apart.
    public var written: ByteWriter {
        var (message, coder) = (self, FieldCoder.writing())
        do throws(WireError) { try message.fields(&coder) } catch { preconditionFailure("writing refuses nothing") }
        return coder.writer
    }

    /// Reads a whole body; anything left over is an error.
    public init(body: [UInt8]) throws(WireError) {
        var coder = FieldCoder(reading: body)
        self.init()
        try fields(&coder)
        try coder.finish()
    }

    /// What a message consists of, in wire order.
    public static var fields: [WireField] {
        var (message, coder) = (Self(), FieldCoder.listing())
        do throws(WireError) { try message.fields(&coder) } catch { preconditionFailure("listing refuses nothing") }
        return coder.listed
    }
}

/// An item of a list.
protocol WireItem: WireMessage {
    /// What documents call it.
    static var typeName: String { get }
    /// Its size on the wire.
    static var byteCount: Int { get }
}

/// A request: a message that knows its opcode and what is answered.
public protocol WireRequest: WireMessage {
    /// What the daemon answers when all is well.
    associatedtype Reply: WireMessage
    /// The number of the request.
    static var opcode: Opcode { get }
}

extension Opcode {
    /// The forms that a request and what answers it can have, the last part of the answer at the end.
    public var forms: (requests: [any WireRequest.Type], replies: [any WireMessage.Type]) {
        func pair<Request: WireRequest>(_: Request.Type) -> ([any WireRequest.Type], [any WireMessage.Type]) {
            ([Request.self], [Request.Reply.self])
        }
        return switch self {
        case .hello: pair(HelloRequest.self)
        case .arena: pair(ArenaRequest.self)
        case .openSession: ([OpenSessionRequest.self, OpenIdentifiedSessionRequest.self], [OpenSessionReply.self])
        case .setPolicy: pair(SetPolicyRequest.self)
        case .lookup: pair(LookupRequest.self)
        case .push: pair(PushRequest.self)
        case .pull: ([PullRequest.self], [PullPart.self, PullReply.self])
        case .release: pair(ReleaseRequest.self)
        case .prefetch: pair(PrefetchRequest.self)
        case .touch: pair(TouchRequest.self)
        case .drop: pair(DropRequest.self)
        case .closeSession: pair(CloseSessionRequest.self)
        case .status: pair(StatusRequest.self)
        case .flush: pair(FlushRequest.self)
        case .profile: pair(ProfileRequest.self)
        case .ping: pair(PingRequest.self)
        case .getPolicy: pair(GetPolicyRequest.self)
        case .verify: pair(VerifyRequest.self)
        case .truncate: pair(TruncateRequest.self)
        case .storeProfile: pair(StoreProfileRequest.self)
        case .lookupBlocks: pair(LookupBlocksRequest.self)
        case .pullBlocks: ([PullBlocksRequest.self], [PullPart.self, PullReply.self])
        case .pushBlocks: pair(PushBlocksRequest.self)
        case .profileFile: pair(ProfileFileRequest.self)
        case .drain: pair(DrainRequest.self)
        case .shared: pair(SharedRequest.self)
        case .explain: pair(ExplainRequest.self)
        }
    }
}
