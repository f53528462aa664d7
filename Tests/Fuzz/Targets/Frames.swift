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
        guard let opcode = Opcode(rawValue: header.opcode & ~Opcode.replyBit) else { return }
        let (requests, replies) = opcode.forms
        for type in requests as [any WireMessage.Type] + replies {
            guard let again = try? type.init(body: body).encodedBody else { continue }
            // Where tensors are listed, tables of frequencies may come in any order.
            precondition(again == body || opcode == .openSession, "another encoding of the same message")
            precondition((try? type.init(body: again).encodedBody) == again, "another message of the same encoding")
        }
    }
}
