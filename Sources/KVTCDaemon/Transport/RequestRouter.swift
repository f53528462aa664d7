import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem

/// Why a request has no proper answer.
enum RouterError: Error {
    /// It is answered with an error.
    case refused(WireError)
    /// The client is gone.
    case connection(ConnectionError)
}

/// Turns the frames of one connection into calls of the engine, and holds its arenas. Used by one thread.
struct RequestRouter {
    /// The parts of an answer's body: fields, then bytes that lie elsewhere.
    struct Answer {
        var status: UInt32 = 0
        var fields: [UInt8]
        var payload = UnsafeRawBufferPointer(start: nil, count: 0)
        var descriptor: Int32?
    }
    typealias Send = (Answer) throws(ConnectionError) -> Void
    /// The part of an answer that may take long; it needs nothing of the router.
    typealias Remainder = @Sendable (Send) throws(RouterError) -> Void

    private let engine: Engine
    private let quota: Quota
    private let caller: Caller
    private let limits: DaemonConfiguration.Limits
    private var arenas: [UInt32: Arena] = [:]
    private var lastArena: UInt32 = 0
    /// For the profiles' files that were asked for.
    private var files: [QuotaCharge] = []
    private(set) var hasGreeted = false
    /// The feature bits agreed on.
    private var features: UInt32 = 0

    init(engine: Engine, quota: Quota, caller: Caller, limits: DaemonConfiguration.Limits) {
        self.limits = limits
        self.engine = engine
        self.quota = quota
        self.caller = caller
    }

    /// Answers one request; or gives what is left to do where that may take as long as the disk, so that the requests behind
    /// it need not wait. What it is about is settled by then.
    mutating func answer(_ item: ClientConnection.Item, _ send: Send) throws(RouterError) -> Remainder? {
        let opcode: Opcode
        do throws(WireError) { opcode = try admit(item.header) } catch { throw .refused(error) }
        switch opcode {
        case .pull, .pullBlocks: try pull(opcode, item.body, send)
        case .arena: try arena(item.body, send)
        case .verify: return try verify(item.body)
        case .flush: return try flush(item.body)
        case .profile: return try profile(item.body)
        case .storeProfile: return try storeProfile(item.body)
        case .shared: return try shared(item.body)
        case .profileFile: return try profileFile(item.body)
        default:
            let body: [UInt8]
            do throws(WireError) { body = try simple(opcode, item.body) } catch { throw .refused(error) }
            try RequestRouter.deliver(send, Answer(fields: body))
        }
        return nil
    }

    /// Leaves its arenas' memory to the client.
    func leaveArenas() { for arena in arenas.values { arena.leave() } }

    private func flush(_ body: [UInt8]) throws(RouterError) -> Remainder {
        let (engine, caller) = (engine, caller)
        let request: FlushRequest
        let keys: [StoreKey]?
        do throws(WireError) {
            request = try FlushRequest(body: body)
            keys = try engine.flushed(request, caller)
        } catch { throw .refused(error) }
        return RequestRouter.later { () throws(WireError) in try engine.flushAndAudit(request, keys, caller).encodedBody
        }
    }

    private func profile(_ body: [UInt8]) throws(RouterError) -> Remainder {
        let (engine, caller) = (engine, caller)
        let request: ProfileRequest
        do throws(WireError) { request = try ProfileRequest(body: body) } catch { throw .refused(error) }
        return RequestRouter.later { () throws(WireError) in try engine.profile(request, caller).encodedBody }
    }

    private func shared(_ body: [UInt8]) throws(RouterError) -> Remainder {
        let (engine, caller) = (engine, caller)
        let request: SharedRequest
        do throws(WireError) { request = try SharedRequest(body: body) } catch { throw .refused(error) }
        return RequestRouter.later { () throws(WireError) in try engine.sharedServers(request, caller).encodedBody }
    }

    private func storeProfile(_ body: [UInt8]) throws(RouterError) -> Remainder {
        let (engine, caller) = (engine, caller)
        let request: StoreProfileRequest
        let memory: Arena?
        do throws(WireError) {
            request = try StoreProfileRequest(body: body)
            memory = try arena(request.arena)
        } catch { throw .refused(error) }
        return RequestRouter.later { () throws(WireError) in
            try engine.storeProfile(request, arena: memory, caller).encodedBody
        }
    }

    /// Counts as an arena of no bytes, as its descriptor is the daemon's until the client has read the reply.
    private mutating func profileFile(_ body: [UInt8]) throws(RouterError) -> Remainder {
        let (engine, caller) = (engine, caller)
        let profile: Profile
        do throws(WireError) {
            profile = try engine.profile(of: ProfileFileRequest(body: body).session, caller)
            try checkArenaCount()
            files.append(try quota.takeArena(0, tenant: caller.tenant, limits: limits))
        } catch { throw .refused(error) }
        return { (send) throws(RouterError) in
            let file: SealedMemory
            do throws(WireError) { file = try engine.file(of: profile) } catch { throw .refused(error) }
            // Until the message is with the kernel.
            defer { withExtendedLifetime(file) {} }
            let reply = ProfileFileReply(profile: profile.id.bytes, bytes: UInt64(profile.byteCount))
            try RequestRouter.deliver(send, Answer(fields: reply.encodedBody, descriptor: file.rawDescriptor))
        }
    }

    private static func later(_ body: @escaping @Sendable () throws(WireError) -> [UInt8]) -> Remainder {
        { (send) throws(RouterError) in
            let fields: [UInt8]
            do throws(WireError) { fields = try body() } catch { throw .refused(error) }
            try deliver(send, Answer(fields: fields))
        }
    }

    private func admit(_ header: FrameHeader) throws(WireError) -> Opcode {
        guard let opcode = Opcode(rawValue: header.opcode) else {
            throw WireError(.unknownOpcode, field: "opcode", "\(header.opcode)")
        }
        guard hasGreeted || opcode == .hello else {
            throw WireError(.helloRequired, field: "opcode", "\(opcode) before HELLO")
        }
        guard header.status == 0 else { throw WireError(.invalidField, field: "flags", "\(header.status) is not 0") }
        guard !engine.isStopping || [.hello, .status, .ping].contains(opcode) else {
            throw WireError(.shuttingDown, "the daemon is stopping")
        }
        guard !engine.isDraining || ![.openSession, .push, .pushBlocks].contains(opcode) else {
            throw WireError(
                .limitExceeded, field: "drain",
                "the daemon is being drained: it gives pages back and takes none ('kvtcctl drain --end' undoes that)")
        }
        return opcode
    }

    private static func deliver(_ send: Send, _ answer: Answer) throws(RouterError) {
        do throws(ConnectionError) { try send(answer) } catch { throw .connection(error) }
    }

    private mutating func simple(_ opcode: Opcode, _ body: [UInt8]) throws(WireError) -> [UInt8] {
        switch opcode {
        case .hello: try hello(HelloRequest(body: body)).encodedBody
        case .openSession: try openSession(body).encodedBody
        case .setPolicy: try engine.setPolicyAndAudit(SetPolicyRequest(body: body), caller).encodedBody
        case .getPolicy: try getPolicy(GetPolicyRequest(body: body)).encodedBody
        case .truncate: try engine.truncate(TruncateRequest(body: body), caller).encodedBody
        case .closeSession: try engine.closeSessionAndAudit(CloseSessionRequest(body: body), caller).encodedBody
        case .lookup: try lookup(LookupRequest(body: body)).encodedBody
        case .lookupBlocks: try lookupBlocks(LookupBlocksRequest(body: body)).encodedBody
        case .push: try push(PushRequest(body: body)).encodedBody
        case .pushBlocks: try pushBlocks(PushBlocksRequest(body: body)).encodedBody
        case .release: try engine.release(ReleaseRequest(body: body), caller).encodedBody
        case .prefetch: try engine.prefetch(PrefetchRequest(body: body), caller).encodedBody
        case .touch: try engine.touch(TouchRequest(body: body), caller).encodedBody
        case .drop: try engine.dropAndAudit(DropRequest(body: body), caller).encodedBody
        case .status: try status(StatusRequest(body: body)).encodedBody
        case .drain: try engine.drain(DrainRequest(body: body), caller).encodedBody
        case .explain: try engine.explain(ExplainRequest(body: body), caller).encodedBody
        case .ping: PingReply(payload: try PingRequest(body: body).payload).encodedBody
        case .arena, .pull, .pullBlocks, .verify, .flush, .profile, .storeProfile, .profileFile, .shared:
            throw WireError(.internalError, "\(opcode) is answered elsewhere")
        }
    }

    private mutating func hello(_ request: HelloRequest) throws(WireError) -> HelloReply {
        guard !hasGreeted else { throw WireError(.invalidField, field: "opcode", "HELLO was said already") }
        guard request.minVersion <= Wire.version, request.maxVersion >= Wire.version else {
            throw WireError(
                .badVersion, field: "minVersion",
                "\(request.minVersion) to \(request.maxVersion) leaves out \(Wire.version), the only one spoken here")
        }
        hasGreeted = true
        features = request.features & Wire.features
        return HelloReply(
            version: Wire.version, features: features, instance: engine.instance, maxBody: UInt32(limits.bodyBytes),
            maxInFlight: UInt32(limits.inFlight), maxArena: UInt64(limits.arenaBytes),
            server: "kvtcd \(Daemon.version)")
    }

    private func openSession(_ body: [UInt8]) throws(WireError) -> OpenSessionReply {
        guard features & Wire.featureIdentity != 0 else {
            return try engine.openSession(OpenSessionRequest(body: body), caller)
        }
        let request = try OpenIdentifiedSessionRequest(body: body)
        return try engine.openSession(request.session, identity: request.identity, caller)
    }

    private func getPolicy(_ request: GetPolicyRequest) throws(WireError) -> GetPolicyReply {
        var reply = try engine.getPolicy(request, caller)
        // An earlier client would not read the policy for a flag that it does not know.
        if features & Wire.featureCode == 0 { reply.policy.code = nil }
        return reply
    }

    private func lookup(_ request: LookupRequest) throws(WireError) -> LookupReply {
        var reply = try engine.lookup(request, caller)
        reply.residence = reply.residence.map(told)
        return reply
    }

    private func lookupBlocks(_ request: LookupBlocksRequest) throws(WireError) -> LookupBlocksReply {
        var reply = try engine.lookupBlocks(request, caller)
        for index in reply.pages.indices { reply.pages[index].residence = told(reply.pages[index].residence) }
        return reply
    }

    /// An earlier client would not read a place that it does not know.
    private func told(_ place: KVTCProtocol.Residence) -> KVTCProtocol.Residence {
        place == .shared && features & Wire.featureShared == 0 ? .disk : place
    }

    private func status(_: StatusRequest) -> JSONReply { engine.status(caller) }

    private func push(_ request: PushRequest) throws(WireError) -> PushReply {
        try engine.push(request, arena: try arena(request.arena), caller)
    }

    private func pushBlocks(_ request: PushBlocksRequest) throws(WireError) -> PushReply {
        try engine.pushBlocks(request.push, arena: try arena(request.push.arena), caller)
    }

    private func arena(_ number: UInt32) throws(WireError) -> Arena? {
        guard number != Wire.none else { return nil }
        guard let arena = arenas[number] else {
            throw WireError(.unknownArena, field: "arena", "this connection has no arena \(number)")
        }
        return arena
    }

    private mutating func arena(_ body: [UInt8], _ send: Send) throws(RouterError) {
        let made: (number: UInt32, memory: Arena)
        do throws(WireError) { made = try makeArena(ArenaRequest(body: body)) } catch { throw .refused(error) }
        let reply = ArenaReply(arena: made.number, bytes: UInt64(made.memory.byteCount)).encodedBody
        try RequestRouter.deliver(send, Answer(fields: reply, descriptor: made.memory.rawDescriptor))
        made.memory.closeDescriptor()
    }

    private func verify(_ body: [UInt8]) throws(RouterError) -> Remainder {
        do throws(WireError) {
            _ = try VerifyRequest(body: body)
            guard caller.isAdministrator else {
                throw WireError(.forbidden, "only administrators may verify all pages")
            }
            engine.audit("verification asked for", caller, [:])
        } catch { throw .refused(error) }
        return { [engine] (send) throws(RouterError) in
            do throws(ConnectionError) {
                let found = try engine.verify { (part) throws(ConnectionError) in
                    try send(Answer(status: Wire.more, fields: part.encodedBody))
                }
                try send(Answer(fields: found.encodedBody))
            } catch { throw .connection(error) }
        }
    }

    private func pull(_ opcode: Opcode, _ body: [UInt8], _ send: Send) throws(RouterError) {
        let asStored = opcode == .pullBlocks
        let request: PullRequest
        let memory: Arena?
        do throws(WireError) {
            request = try asStored ? PullRequest(PullBlocksRequest(body: body)) : PullRequest(body: body)
            memory = try arena(request.arena)
        } catch { throw .refused(error) }
        let reply: PullReply
        do throws(PullFailure<ConnectionError>) {
            reply = try engine.pull(request, asStored: asStored, arena: memory, caller) {
                (ready) throws(ConnectionError) in
                try ready.bytes.withBytes { (bytes) throws(ConnectionError) in
                    let fields = ready.part.head(inlineCount: bytes.count)
                    try send(Answer(status: Wire.more, fields: fields, payload: bytes))
                }
            }
        } catch {
            switch error {
            case .refused(let fault): throw .refused(fault)
            case .notDelivered(let lost): throw .connection(lost)
            }
        }
        try RequestRouter.deliver(send, Answer(fields: reply.encodedBody))
    }

    private func checkArenaCount() throws(WireError) {
        let limit = limits.arenasPerConnection
        guard arenas.count + files.count < limit else {
            throw WireError(.limitExceeded, field: "arena", "more than \(limit) arenas of one connection")
        }
    }

    private mutating func makeArena(_ request: ArenaRequest) throws(WireError) -> (UInt32, Arena) {
        guard (1...UInt64(limits.arenaBytes)).contains(request.bytes) else {
            throw WireError(
                .limitExceeded, field: "bytes", "\(request.bytes) is not between 1 and \(limits.arenaBytes)")
        }
        try checkArenaCount()
        // Whole pages of memory, so that the client may map all of it.
        let bytes = (Int(request.bytes) + 4095) & ~4095
        let charge = try quota.takeArena(bytes, tenant: caller.tenant, limits: limits)
        do throws(SystemError) {
            let arena = try Arena(byteCount: bytes, charge: charge)
            repeat { lastArena = lastArena &+ 1 } while lastArena == Wire.none || arenas[lastArena] != nil
            arenas[lastArena] = arena
            return (lastArena, arena)
        } catch {
            engine.log.warning(
                "no memory for an arena", metadata: ["bytes": "\(bytes)", "error": .stringConvertible(error)])
            throw WireError(.limitExceeded, field: "bytes", "there is no memory for another arena")
        }
    }
}
