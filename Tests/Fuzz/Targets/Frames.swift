import KVTCProtocol

/// A frame as a server and as a client read it. What reads must write back to the same bytes, and read again.
enum Frames {
    static func run(_ input: UnsafeRawBufferPointer) {
        guard input.count >= FrameHeader.byteCount,
            let parsed = try? FrameHeader.parse([UInt8](input[..<FrameHeader.byteCount]))
        else { return }
        let header = parsed.header
        precondition(header.encoded.elementsEqual(input[..<FrameHeader.byteCount]) || parsed.fault != nil)
        let body = [UInt8](input[FrameHeader.byteCount...])
        if header.errorStatus != 0, let error = try? WireError(status: header.errorStatus, body: body) {
            precondition(!"\(error)".isEmpty)
        }
        let opcode = Opcode(rawValue: header.opcode & ~Opcode.replyBit)
        for decode in opcode.map(decoders(of:)) ?? [] {
            guard let again = try? decode(body) else { continue }
            // Where tensors are listed, tables of frequencies may come in any order.
            precondition(again == body || opcode == .openSession, "another encoding of the same message")
            precondition((try? decode(again)) == again, "another message of the same encoding")
        }
    }

    /// Decode and encode again, as request and as reply.
    private static func decoders(of opcode: Opcode) -> [([UInt8]) throws -> [UInt8]] {
        switch opcode {
        case .hello: [{ try HelloRequest(body: $0).encodedBody }, { try HelloReply(body: $0).encodedBody }]
        case .arena: [{ try ArenaRequest(body: $0).encodedBody }, { try ArenaReply(body: $0).encodedBody }]
        case .openSession:
            [
                { try OpenSessionRequest(body: $0).encodedBody }, { try OpenSessionReply(body: $0).encodedBody },
                { try OpenIdentifiedSessionRequest(body: $0).encodedBody },
            ]
        case .setPolicy: [{ try SetPolicyRequest(body: $0).encodedBody }, { try SetPolicyReply(body: $0).encodedBody }]
        case .getPolicy: [{ try GetPolicyRequest(body: $0).encodedBody }, { try GetPolicyReply(body: $0).encodedBody }]
        case .truncate: [{ try TruncateRequest(body: $0).encodedBody }, { try TruncateReply(body: $0).encodedBody }]
        case .closeSession:
            [{ try CloseSessionRequest(body: $0).encodedBody }, { try EmptyReply(body: $0).encodedBody }]
        case .lookup: [{ try LookupRequest(body: $0).encodedBody }, { try LookupReply(body: $0).encodedBody }]
        case .push: [{ try PushRequest(body: $0).encodedBody }, { try PushReply(body: $0).encodedBody }]
        case .pull:
            [
                { try PullRequest(body: $0).encodedBody }, { try PullReply(body: $0).encodedBody },
                { try PullPart(body: $0).encodedBody },
            ]
        case .release: [{ try ReleaseRequest(body: $0).encodedBody }]
        case .prefetch: [{ try PrefetchRequest(body: $0).encodedBody }, { try PrefetchReply(body: $0).encodedBody }]
        case .touch: [{ try TouchRequest(body: $0).encodedBody }, { try TouchReply(body: $0).encodedBody }]
        case .drop: [{ try DropRequest(body: $0).encodedBody }, { try DropReply(body: $0).encodedBody }]
        case .status: [{ try StatusRequest(body: $0).encodedBody }, { try JSONReply(body: $0).encodedBody }]
        case .flush: [{ try FlushRequest(body: $0).encodedBody }, { try FlushReply(body: $0).encodedBody }]
        case .profile: [{ try ProfileRequest(body: $0).encodedBody }]
        case .storeProfile: [{ try StoreProfileRequest(body: $0).encodedBody }]
        case .verify: [{ try VerifyRequest(body: $0).encodedBody }, { try VerifyReply(body: $0).encodedBody }]
        case .ping: [{ try PingRequest(body: $0).encodedBody }, { try PingReply(body: $0).encodedBody }]
        }
    }
}
