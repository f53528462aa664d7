import KVTCProtocol
import KVTCSystem

/// The other end of a client's connection, answering as the test says, on a thread of its own.
struct ScriptedServer {
    /// One request as it came.
    struct Request {
        var header: FrameHeader
        var body: [UInt8]
    }

    let connection: UnixConnection

    /// A client's connection and the thread that serves it: HELLO first, then the script.
    static func start(
        maxBody: UInt32 = 1 << 20, features: UInt32 = 3, _ script: @escaping @Sendable (ScriptedServer) throws -> Void
    ) throws -> UnixConnection {
        let (client, server) = try UnixConnection.pair()
        try Thread.start {
            let server = ScriptedServer(connection: server)
            // A script that fails closes the connection; the client's own expectations report it.
            try? server.hello(maxBody: maxBody, features: features)
            try? script(server)
            server.connection.shutdown()
        }.detach()
        return client
    }

    func hello(maxBody: UInt32, features: UInt32 = 3) throws {
        let reply = HelloReply(
            version: 1, features: features, instance: 7, maxBody: maxBody, maxInFlight: 8, maxArena: 1 << 30,
            server: "scripted")
        try answer(try next(), reply)
    }

    /// The next request.
    func next() throws -> Request {
        let (header, _) = try FrameHeader.parse(try connection.read(count: FrameHeader.byteCount))
        return Request(header: header, body: try connection.read(count: Int(header.bodyLength)))
    }

    /// Answers a request, in full or in part.
    func answer(
        _ request: Request, _ reply: some WireMessage, more: Bool = false, descriptor: Int32? = nil
    ) throws {
        try send(request.header, reply.encodedBody, status: more ? Wire.more : 0, descriptor: descriptor)
    }

    /// Refuses a request.
    func refuse(_ request: Request, _ error: WireError) throws {
        try send(request.header, error.encodedBody(), status: UInt32(error.code.rawValue), descriptor: nil)
    }

    private func send(_ header: FrameHeader, _ body: [UInt8], status: UInt32, descriptor: Int32?) throws {
        let reply = FrameHeader(
            opcode: header.opcode | Opcode.replyBit, id: header.id, status: status, bodyLength: UInt32(body.count))
        try connection.write([reply.encoded[...], body[...]], descriptor: descriptor)
    }
}
