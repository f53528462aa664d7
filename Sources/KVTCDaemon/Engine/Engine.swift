import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem
import Logging
import Synchronization

/// Who asks: the tenant by the peer's user as the kernel knows it, and the connection the answer goes to.
struct Caller: Sendable {
    var tenant: UInt32
    var connection: UInt64
    /// Whether sessions of any tenant may be named.
    var isAdministrator: Bool
    /// The process at the other end; nil where there is none.
    var peer: PeerCredentials?
}

/// What the daemon does with requests: joins sessions, store, codec and the compute pool. Knows nothing of sockets.
final class Engine: Sendable {
    /// What is in effect now.
    let settings: Mutex<DaemonConfiguration>
    let store: Store
    /// What other machines keep; nil where there are none.
    let shared: (any SharedTier)?
    let pool: WorkPool
    /// Threads that code pages.
    let coders: WorkPool
    /// Threads that wait for the disk.
    let readers: WorkPool
    let profiles: ProfileRegistry
    let metrics = Metrics()
    let ledger: Monitor<Ledger>
    let leases = RankedMutex<[UInt64: Lease]>([:], rank: .leases)
    /// Pages that wait to be brought from the disk because a client of the tenant asked beforehand.
    let prefetching = Mutex<[UInt32: Int]>([:])
    /// Those that a tenant's sessions used since the start, for requests that name keys and no session.
    let namespaces = Mutex<[UInt32: RecentNamespaces]>([:])
    /// Which budgets of RAM run short.
    let shortage = Mutex(Shortage())
    /// Counts finished encode jobs, so that who waits for room or for a flush wakes up.
    let encodesDone = Monitor<UInt64>(0)
    let encodesPending = Atomic(0)
    /// Of those the ones that RAM running short is the reason of.
    let pressed = Atomic(0)
    /// How long a push lets coders go first, in nanoseconds.
    let pushPatience: UInt64
    let instance = UInt64.random(in: 1...(UInt64.max >> 1))
    let started = MonotonicClock.nanoseconds
    let log: Logger
    /// Whether the kernel refused memory for pages when that was last logged.
    let memoryRefusal = Atomic(false)
    /// Whether a thread looks after the disk, see ``lookAfterDisk()``.
    let isHealing = Atomic(false)
    /// Whether a thread tries what the disk does, see ``proveDisk()``.
    let isProving = Atomic(false)
    private let stopping = Atomic(false)
    private let draining = Atomic(false)

    struct Lease: Sendable {
        var tenant: UInt32
        var connection: UInt64
        /// Keys that it covers.
        var keys: Int
        /// On the store's clock; none while a pull goes on.
        var deadline: UInt64
        /// How long it lasts after it was taken and after each pull.
        var milliseconds: UInt64
        /// Pulls that name it and go on.
        var pulls = 0
    }

    init(
        configuration: DaemonConfiguration, store: Store, shared: (any SharedTier)? = nil, pool: WorkPool,
        coders: WorkPool? = nil, readers: WorkPool, profiles: ProfileRegistry, log: Logger,
        ledger: sending Ledger = Ledger(numbersAtRandom: true),
        pushPatience: UInt64 = 200_000_000
    ) {
        var ledger = ledger
        ledger.code = configuration.codeInEffect
        self.ledger = Monitor(ledger, rank: .ledger)
        settings = Mutex(configuration)
        self.store = store
        self.shared = shared
        self.pool = pool
        self.coders = coders ?? pool
        self.pushPatience = pushPatience
        self.readers = readers
        self.profiles = profiles
        self.log = log
    }

    /// As it is now: another one may follow, see ``adopt(_:)``.
    var configuration: DaemonConfiguration { settings.withLock { $0 } }
    var limits: DaemonConfiguration.Limits { settings.withLock { $0.limits } }

    /// From now on every request but the answers still owed is refused.
    func refuseRequests() { stopping.store(true, ordering: .releasing) }

    var isStopping: Bool { stopping.load(ordering: .acquiring) }

    /// From now on no session is opened and no page taken; or they are again.
    func drain(_ request: DrainRequest, _ caller: Caller) throws(WireError) -> DrainReply {
        guard caller.isAdministrator else { throw WireError(.forbidden, "only administrators may drain the daemon") }
        let begins = request.begin == 1
        draining.store(begins, ordering: .releasing)
        audit(begins ? "drained: no sessions and pages are taken" : "drained no more", caller, [:], level: .notice)
        return DrainReply(
            waiting: UInt64(ledger.withLock { $0.waitingPages(of: nil) } + pendingEncodes),
            unwritten: UInt64(store.statistics.dirtyPages))
    }

    var isDraining: Bool { draining.load(ordering: .acquiring) }

    /// The session of that number without its pages, if the caller may use it. One of another tenant answers like none at
    /// all.
    func session(_ id: UInt32, _ caller: Caller) throws(WireError) -> Session {
        let found = ledger.withLock { ledger -> Session? in
            guard let session = ledger.sessions[id], session.tenant == caller.tenant || caller.isAdministrator else {
                return nil
            }
            ledger.touch(id, now: MonotonicClock.nanoseconds)
            return session.withoutPages
        }
        guard let found else { throw WireError(.unknownSession, field: "session", "no session \(id)") }
        return found
    }

    func checkCount(_ count: Int, _ field: String) throws(WireError) {
        let limit = limits.keys
        guard count <= limit else { throw WireError(.limitExceeded, field: field, "\(count) are more than \(limit)") }
    }

    func storeKey(_ session: Session, _ key: PageKey) -> StoreKey {
        session.namespace.key(key.vector, tenant: session.tenant)
    }

    /// The pages that a session holds.
    func keys(of session: UInt32) -> [StoreKey] {
        ledger.withLock { $0.keys(of: session) }
    }

    func storeKeys(_ session: Session, _ keys: [PageKey]) -> [StoreKey] { keys.map { storeKey(session, $0) } }

    // MARK: - Sessions

    func openSession(
        _ request: OpenSessionRequest, identity: [UInt8] = [], _ caller: Caller
    ) throws(WireError) -> OpenSessionReply {
        guard (16...1024).contains(request.pageTokens) else {
            throw WireError(.invalidField, field: "pageTokens", "\(request.pageTokens) is not between 16 and 1024")
        }
        guard request.name.utf8.count <= 256 else {
            throw WireError(.invalidField, field: "name", "longer than 256 bytes")
        }
        let context = try makeContext(request)
        try check(request.policy, hasProfile: context.codec.profile != nil)
        try checkPageSize(request, context)
        let namespace = PageNamespace(identity: identity, codec: context.codec, element: context.layout.element)
        let tokenBytes = context.layout.pageBytes(geometry: context.codec.geometry, tokens: 1)
        let limit = limits.sessionsPerUser
        let id = ledger.update { ledger -> UInt32? in
            guard ledger.sessions.values.count(where: { $0.tenant == caller.tenant }) < limit else { return nil }
            return ledger.open { id in
                Session(
                    id: id, tenant: caller.tenant, connection: caller.connection, name: request.name, context: context,
                    namespace: namespace, pageTokens: Int(request.pageTokens), tokenBytes: tokenBytes,
                    policy: request.policy, lastUse: MonotonicClock.nanoseconds)
            }
        }
        guard let id else {
            throw WireError(
                .limitExceeded, field: "session", "more than \(limit) sessions of one user: close those that are over")
        }
        namespaces.withLock { $0[caller.tenant, default: RecentNamespaces()].use(namespace) }
        log.info(
            "session opened", metadata: ["session": "\(id)", "tenant": "\(caller.tenant)", "name": "\(request.name)"])
        return OpenSessionReply(
            session: id, profile: context.codec.profile?.id.bytes ?? [], tokenBytes: UInt64(tokenBytes))
    }

    /// A page size that could never be pushed or kept is refused before the first one is made.
    private func checkPageSize(_ request: OpenSessionRequest, _ context: CodingContext) throws(WireError) {
        let limits = limits
        func bytes(_ tokens: Int) -> Int {
            context.codec.wrappedBytes(element: context.layout.element, tokens: tokens)
        }
        let needed = bytes(Int(request.pageTokens))
        var bounds = [
            // Above the usual size of an arena, arenas grow with the budget.
            (store.maxRAMPageBytes, needed <= 256 << 20 ? "ram.budget" : "ram.budget (a page takes a 32nd at most)"),
            (max(limits.arenaBytes, limits.bodyBytes) + bytes(0), "limits.arena"),
        ]
        if let disk = store.maxDiskPageBytes { bounds.append((disk, "disk.segment (disk.budget holds at least four)")) }
        if limits.ramPerUser > 0 { bounds.append((limits.ramPerUser, "limits.ram_per_user")) }
        bounds.removeAll { $0.0 >= needed }
        guard let bound = bounds.map(\.0).min() else { return }
        let fitting = (bound - bytes(0)) / (bytes(1) - bytes(0))
        throw WireError(
            .limitExceeded, field: "pageTokens",
            "a page of \(request.pageTokens) tokens takes \(needed) bytes, at most \(bound) are kept: raise "
                + bounds.map(\.1).joined(separator: " and ")
                + (fitting >= 16 ? ", or use pages of at most \(fitting) tokens" : ""))
    }

    private func makeContext(_ request: OpenSessionRequest) throws(WireError) -> CodingContext {
        var profile: Profile?
        if !request.profile.isEmpty {
            profile = profiles.find(request.profile)
            guard profile != nil else { throw WireError(.unknownProfile, field: "profile", "not loaded") }
        }
        let geometry: Geometry
        do throws(ModelError) {
            if let profile, request.tensors.isEmpty {
                geometry = profile.geometry
            } else {
                geometry = try Geometry(listed: request.tensors, grouping: request.layout.grouping)
            }
            try request.layout.validate(for: geometry)
        } catch { throw WireError(error) }
        do throws(CodecError) {
            return CodingContext(codec: try PageCodec(geometry: geometry, profile: profile), layout: request.layout)
        } catch { throw WireError(codec: error, field: "geometry") }
    }

    func check(_ policy: Policy, hasProfile: Bool) throws(WireError) {
        let limits = limits
        func refuse(_ field: String, _ message: String) -> WireError {
            WireError(.invalidField, field: "policy.\(field)", message)
        }
        func checkBound(_ field: String, _ bound: Float?) throws(WireError) {
            guard let bound, !(bound >= CodingChoice.leastBound) else { return }
            throw refuse(field, "\(bound) is less than \(CodingChoice.leastBound): use the mode lossless")
        }
        guard policy.sink <= limits.sinkTokens else {
            throw refuse("sink", "\(policy.sink) is more than \(limits.sinkTokens)")
        }
        guard policy.window <= limits.windowTokens else {
            throw refuse("window", "\(policy.window) is more than \(limits.windowTokens)")
        }
        guard policy.protected.count <= limits.protectedRanges else {
            throw refuse("protected", "more than \(limits.protectedRanges) ranges")
        }
        guard hasProfile || !policy.mode.needsProfile else {
            throw refuse("mode", "\(policy.mode) needs a profile, the session has none")
        }
        for (field, bound) in [("near", policy.near), ("distortionLimit", policy.distortionLimit)] {
            guard bound == nil || policy.mode.needsProfile else {
                throw refuse(field, "\(policy.mode) knows no distortion: use the mode transform, or leave it out")
            }
            try checkBound(field, bound)
        }
        if policy.mode.needsProfile {
            do throws(ModelError) { try CodingChoice(policy).quality.validate() } catch {
                throw refuse("quality", "\(error)")
            }
            if policy.qualityKind == .distortion { try checkBound("quality", policy.quality) }
        }
    }

    func getPolicy(_ request: GetPolicyRequest, _ caller: Caller) throws(WireError) -> GetPolicyReply {
        let session = try session(request.session, caller)
        return GetPolicyReply(policy: session.policy, tokens: UInt32(clamping: session.tokens))
    }

    func setPolicy(_ request: SetPolicyRequest, _ caller: Caller) throws(WireError) -> SetPolicyReply {
        let session = try session(request.session, caller)
        try check(request.policy, hasProfile: session.context.codec.profile != nil)
        for key in ledger.withLock({ $0.unresolved(session.id, under: request.policy) }) { _ = coded(key) }
        // A block that is just taking a page's place was coded under the policy before; what it lost is to be told.
        let change = ledger.update(when: { $0.isSettled($0.keys(of: session.id)) }) {
            $0.setPolicy(session.id, request.policy)
        }
        guard let change else {
            throw WireError(.unknownSession, field: "session", "no session \(session.id)")
        }
        enqueue(change.ready)
        applyAttributes(of: request.policy, before: session.policy, to: keys(of: session.id))
        return SetPolicyReply(
            rawTokens: UInt32(clamping: change.rawTokens),
            alreadyCoded: change.alreadyCoded.map {
                PositionRange(begin: UInt32($0.lowerBound), end: UInt32($0.upperBound))
            })
    }

    // Only what the new policy changes: TOUCH may have changed single pages, and that stays.
    private func applyAttributes(of policy: Policy, before: Policy, to keys: [StoreKey]) {
        let pinned = policy.pin == before.pin ? nil : policy.pin
        let priority = policy.priority == before.priority ? nil : policy.priority
        let expiry = policy.ttlSeconds == before.ttlSeconds ? ExpiryChange.keep : expiry(ttl: policy.ttlSeconds)
        guard pinned != nil || priority != nil || expiry != .keep else { return }
        for key in keys { store.update(key, pinned: pinned, priority: priority, expiry: expiry) }
    }

    func expiry(ttl seconds: UInt32) -> ExpiryChange {
        switch seconds {
        case Wire.none: .keep
        case 0: .never
        default: .after(seconds)
        }
    }

    /// Cuts a session's end. The pages behind it stay in the store.
    func truncate(_ request: TruncateRequest, _ caller: Caller) throws(WireError) -> TruncateReply {
        let session = try session(request.session, caller)
        let (cut, tokens) = ledger.update { ledger in
            let cut = ledger.truncate(session.id, to: Int(request.tokens))
            return (cut, ledger.sessions[session.id]?.tokens ?? 0)
        }
        enqueue(cut.ready)
        if session.tenant != caller.tenant {
            audit("session of another user cut", caller, ["session": "\(session.id)", "tokens": "\(tokens)"])
        }
        return TruncateReply(tokens: UInt32(clamping: tokens), pages: UInt32(clamping: cut.left.count))
    }

    func closeSession(_ request: CloseSessionRequest, _ caller: Caller) throws(WireError) -> EmptyReply {
        let session = try session(request.session, caller)
        close([session.id])
        return EmptyReply()
    }

    /// Ends the sessions a connection opened and the leases it took.
    func connectionEnded(_ connection: UInt64) {
        endLeases(of: connection)
        close(ledger.withLock { $0.sessions.values.filter { $0.connection == connection }.map(\.id) })
    }

    private func close(_ ids: [UInt32]) {
        for id in ids {
            // For the case that the process dies before a coder has been there.
            for key in ledger.withLock({ $0.pagesToRetain(of: id) }) { store.update(key, promised: true) }
            enqueue(ledger.update { $0.close(id) })
            log.info("session closed", metadata: ["session": "\(id)"])
        }
    }
}
