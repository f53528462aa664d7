import KVTCClient
import KVTCModel
import KVTCProtocol
import KVTCSystem
import TestSupport
import Testing

/// A daemon that goes away and comes back under a client, played by a script a connection.
@Suite struct ReconnectingSessionTests {
    private let key = PageKey([UInt8](repeating: 5, count: 32))!
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// Serves one connection after another, each by its script, the last one to its end.
    private func serve(
        features: UInt32 = 3, _ scripts: [@Sendable (ScriptedServer) throws -> Void]
    ) throws {
        let listener = try UnixListener(path: directory.file("s"))
        let wakeUp = try WakeUp()
        try Thread.start {
            for script in scripts {
                guard let connection = try? listener.accept(wakeUp: wakeUp) else { return }
                let server = ScriptedServer(connection: connection)
                try? server.hello(maxBody: 1 << 20, features: features)
                try? script(server)
                connection.shutdown()
            }
            listener.removePath()
        }.detach()
    }

    private var terms: ReconnectingSession.Terms {
        var terms = ReconnectingSession.Terms()
        (terms.socketPath, terms.reconnectSeconds) = (directory.file("s"), 10)
        return terms
    }

    private func request(window: UInt32 = 128) -> OpenSessionRequest {
        OpenSessionRequest(
            name: "chat", layout: PageLayout(element: .f16), pageTokens: 16,
            policy: Policy(window: window))
    }

    private static func open(_ server: ScriptedServer, number: UInt32, window: UInt32 = 128) throws {
        let request = try server.next()
        let opened = try OpenSessionRequest(body: request.body)
        guard opened.policy.window == window else { return server.connection.shutdown() }
        try server.answer(request, OpenSessionReply(session: number, profile: [], tokenBytes: 4))
    }

    @Test func aPushIsRepeatedOnANewConnection() throws {
        try serve([
            { server in
                try Self.open(server, number: 1)
                _ = try server.next()
            },
            { server in
                try Self.open(server, number: 9)
                let request = try server.next()
                let push = try PushRequest(body: request.body)
                try server.answer(request, PushReply(outcomes: push.session == 9 ? [.present] : [.full]))
            },
        ])
        let session = try ReconnectingSession(request(), terms: terms)
        let page = ClientPage(key: key, firstPosition: 0, bytes: [UInt8](repeating: 1, count: 64))
        #expect(try session.push([page]) == [.present])
    }

    @Test func theSessionIsOpenedAgainWithThePolicyItHas() throws {
        try serve([
            { server in
                try Self.open(server, number: 1)
                try server.answer(try server.next(), SetPolicyReply(rawTokens: 0, alreadyCoded: []))
                // It stops, and says so.
                try server.refuse(try server.next(), WireError(.shuttingDown, "the daemon is stopping"))
            },
            { server in
                try Self.open(server, number: 1, window: 77)
                try server.answer(try server.next(), FlushReply(pages: 3, bytes: 4))
            },
        ])
        let session = try ReconnectingSession(request(), terms: terms)
        _ = try session.setPolicy(Policy(window: 77))
        #expect(try session.flush().pages == 3)
    }

    @Test func theSessionIsOpenedAgainWithItsIdentity() throws {
        let open: @Sendable (ScriptedServer) throws -> Void = { server in
            let request = try server.next()
            guard try OpenIdentifiedSessionRequest(body: request.body).identity == [7] else { return }
            try server.answer(request, OpenSessionReply(session: 1, profile: [], tokenBytes: 4))
        }
        try serve(
            features: Wire.features,
            [
                open,
                { server in
                    try open(server)
                    try server.answer(try server.next(), FlushReply(pages: 3, bytes: 4))
                },
            ])
        let session = try ReconnectingSession(request(), identity: [7], terms: terms)
        #expect(try session.flush().pages == 3)
    }

    @Test(arguments: [Wire.features & ~Wire.featureCode, Wire.features])
    func onlyDaemonsThatKnowItAreToldWhenPagesAreCoded(features: UInt32) throws {
        let expected: CodingTime? = features & Wire.featureCode == 0 ? nil : .idle
        try serve(
            features: features,
            [
                { server in
                    let open = try server.next()
                    let session = try OpenIdentifiedSessionRequest(body: open.body).session
                    guard session.policy == Policy(pin: true, code: expected) else { return }
                    try server.answer(open, OpenSessionReply(session: 1, profile: [], tokenBytes: 4))
                    let change = try server.next()
                    guard try SetPolicyRequest(body: change.body).policy.code == expected else { return }
                    try server.answer(change, SetPolicyReply(rawTokens: 0, alreadyCoded: []))
                }
            ])
        var asked = request()
        asked.policy = Policy(pin: true, code: .idle)
        let session = try ReconnectingSession(asked, terms: terms)
        #expect(try session.setPolicy(Policy(code: .idle)).rawTokens == 0)
    }

    @Test func aRequestThatKillsEveryDaemonIsGivenUp() throws {
        let deadly: @Sendable (ScriptedServer) throws -> Void = { server in
            try Self.open(server, number: 1)
            _ = try server.next()
        }
        try serve([deadly, deadly, deadly])
        let session = try ReconnectingSession(request(), terms: terms)
        #expect(throws: ClientError.self) { try session.fetch([key]) }
    }

    @Test func refusalsAreNotRepeated() throws {
        let refusal = WireError(.positionConflict, field: "entries", "overlaps")
        try serve([
            { server in
                try Self.open(server, number: 1)
                try server.refuse(try server.next(), refusal)
            }
        ])
        let session = try ReconnectingSession(request(), terms: terms)
        #expect(throws: ClientError.refused(refusal)) { try session.lookup([key]) }
    }
}
