import KVTCClient
import KVTCModel
import KVTCProtocol
import KVTCSystem
import TestSupport
import Testing

struct ClientTests {
    private func client(
        maxBody: UInt32 = 1 << 20, timeout: Int = 30, _ script: @escaping @Sendable (ScriptedServer) throws -> Void
    ) throws -> Client {
        let connection = try ScriptedServer.start(maxBody: maxBody, script)
        return try Client(connection: connection, name: "test", timeoutSeconds: timeout)
    }

    private let key = PageKey([UInt8](repeating: 5, count: 32))!

    @Test func helloTellsTheServersLimits() throws {
        let client = try client { _ in }
        #expect(client.server.instance == 7)
        #expect(client.server.server == "scripted")
    }

    private func open(_ client: Client, identity: [UInt8]) throws -> ClientSession {
        let request = OpenSessionRequest(name: "chat", layout: PageLayout(element: .f16), policy: Policy())
        return try ClientSession(client, request, identity: identity)
    }

    @Test func anIdentityGoesToDaemonsThatKnowIdentitiesOnly() throws {
        let reply = OpenSessionReply(session: 1, profile: [], tokenBytes: 4)
        let new = try ScriptedServer.start(features: Wire.features) { server in
            let request = try server.next()
            let opened = try OpenIdentifiedSessionRequest(body: request.body)
            if opened.identity == [1, 2] { try server.answer(request, reply) }
        }
        #expect(try open(Client(connection: new, name: "test"), identity: [1, 2]).number == 1)
        let old = try client { server in
            let request = try server.next()
            _ = try OpenSessionRequest(body: request.body)
            try server.answer(request, reply)
        }
        let refused = #expect(throws: ClientError.self) { try open(old, identity: [1, 2]) }
        #expect(refused?.description.contains("scripted knows no identities") == true)
        #expect(try open(old, identity: []).number == 1)
    }

    @Test func repliesMayComeInAnyOrder() throws {
        let client = try client { server in
            let requests = [try server.next(), try server.next(), try server.next()]
            for request in requests.reversed() { try server.answer(request, PingReply(payload: request.body[4...])) }
        }
        let pending = try [1, 2, 3].map { try client.send(PingRequest(payload: [$0])) }
        #expect(try pending.map { try client.receive($0).payload } == [[1], [2], [3]])
    }

    @Test func threadsWaitForTheirOwnReplies() throws {
        let client = try client { server in
            while true {
                let request = try server.next()
                try server.answer(request, PingReply(payload: request.body[4...]))
            }
        }
        let failures = Monitor(0)
        let threads = try (0..<4).map { number in
            try Thread.start {
                for round in 0..<200 {
                    let payload: [UInt8] = [UInt8(number), UInt8(round)]
                    let reply = try? client.call(PingRequest(payload: payload[...])).payload
                    if reply.map(Array.init) != payload { failures.withLock { $0 += 1 } }
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(failures.withLock { $0 } == 0)
    }

    @Test func aRefusalIsTypedAndTheConnectionGoesOn() throws {
        let refusal = WireError(.unknownSession, field: "session", "no session 9")
        let client = try client { server in
            try server.refuse(try server.next(), refusal)
            try server.answer(try server.next(), JSONReply(json: "{}"))
        }
        #expect(throws: ClientError.refused(refusal)) { try client.call(FlushRequest(session: 9)) }
        #expect(try client.call(StatusRequest()).json == "{}")
    }

    @Test func pullHandsOnPartsAsTheyCome() throws {
        let client = try client { server in
            let request = try server.next()
            for layer in UInt16(0)..<3 {
                let part = PullPart(
                    entry: 0, layerBegin: layer, layerEnd: layer + 1, outcome: .hit, offset: 0, length: 1, inline: [9])
                try server.answer(request, part, more: true)
            }
            try server.answer(request, PullReply(hits: 1, misses: 0, corrupt: 0, other: 0))
        }
        var layers: [UInt16] = []
        let entry = PullEntry(key: key, offset: 0, capacity: 3)
        let reply = try client.pull(PullRequest(session: 1, arena: Wire.none, entries: [entry])) {
            layers.append($0.layerBegin)
        }
        #expect(layers == [0, 1, 2])
        #expect(reply.hits == 1)
    }

    @Test func anArenaIsSharedWithTheOtherEnd() throws {
        let shared = try Arena(byteCount: 4096)
        let client = try client { server in
            let request = try server.next()
            try server.answer(request, ArenaReply(arena: 3, bytes: 4096), descriptor: shared.rawDescriptor)
        }
        let arena = try client.makeArena(bytes: 4096)
        #expect(arena.number == 3)
        #expect([UInt8]([1, 2, 3]).withUnsafeBytes { arena.memory.write($0, offset: 100) })
        #expect(shared.copy(offset: 100, length: 3) == [1, 2, 3])
    }

    @Test func anArenaReplyWithoutMemoryIsAViolation() throws {
        let client = try client { server in
            try server.answer(try server.next(), ArenaReply(arena: 3, bytes: 4096))
        }
        #expect(throws: ClientError.violation("an ARENA reply without a descriptor")) {
            try client.makeArena(bytes: 4096)
        }
    }

    @Test func aRequestOverTheLimitIsNotSent() throws {
        let client = try client(maxBody: 100) { server in
            try server.answer(try server.next(), PingReply(payload: []))
        }
        #expect(throws: ClientError.self) {
            try client.call(PingRequest(payload: [UInt8](repeating: 0, count: 97)[...]))
        }
        #expect(throws: Never.self) { try client.call(PingRequest(payload: [UInt8](repeating: 0, count: 96)[...])) }
    }

    @Test func theDaemonsLastWordsExplainTheEnd() throws {
        let farewell = WireError(.timeout, "idle too long")
        let client = try client { server in
            var request = try server.next()
            request.header.id = 0
            try server.refuse(request, farewell)
        }
        #expect(throws: ClientError.refused(farewell)) { try client.call(StatusRequest()) }
        #expect(throws: ClientError.refused(farewell)) { try client.call(StatusRequest()) }
    }

    @Test func aConnectionCutInAReplyIsLost() throws {
        let client = try client { server in
            let request = try server.next()
            let header = FrameHeader(
                opcode: request.header.opcode | Opcode.replyBit, id: request.header.id, status: 0, bodyLength: 100)
            try server.connection.write(header.encoded + [1, 2, 3])
        }
        #expect(throws: ClientError.connectionLost("closed inside a reply")) { try client.call(StatusRequest()) }
    }

    @Test(arguments: ["HTTP/1.1 400 Bad Request", "KVT1\u{9}\u{9} twenty-four bytes"])
    func nonsenseIsAViolation(text: String) throws {
        let client = try client { server in
            _ = try server.next()
            try server.connection.write(Array(text.utf8))
        }
        let error = #expect(throws: ClientError.self) { try client.call(StatusRequest()) }
        guard case .violation = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func nobodyThere() throws {
        let directory = try TemporaryDirectory()
        let error = #expect(throws: ClientError.self) { try Client(socketPath: directory.file("none")) }
        #expect(error?.description.contains("systemctl start kvtcd.socket") == true)
        #expect(error?.isTransient == false)
    }
}
