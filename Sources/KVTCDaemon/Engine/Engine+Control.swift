import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem

extension Engine {
    /// Notes that a session is about to put pages behind those that it has, which count as used now. Gives the conversation up to
    /// there, or the end of it, and the pages.
    func conversation(of session: Session, upTo first: Int, _ keys: [StoreKey]) -> [StoreKey] {
        let now = MonotonicClock.nanoseconds
        let (before, isLong) = ledger.withLock { ledger -> ([StoreKey], Bool) in
            let pages = ledger.sessions[session.id]?.pages ?? []
            let isLong = pages.count > Self.longConversation
            // Of a long one all of it only now and then: a push must not cost more for that.
            let isDue = isLong && now - min(now, session.wholeUse) > 1_000_000_000
            if isDue { ledger.change(session.id) { $0.wholeUse = now } }
            let used = isLong && !isDue ? pages.suffix(Self.longConversation) : pages[...]
            return (used.filter { $0.end <= first }.map(\.key), isLong && !isDue)
        }
        let all = before + keys
        if isLong { store.use(keys) } else { store.use(all) }
        return all
    }

    private static let longConversation = 1024

    func prefetch(_ request: PrefetchRequest, _ caller: Caller) throws(WireError) -> PrefetchReply {
        try checkCount(request.keys.count, "keys")
        let session = try session(request.session, caller)
        // What is brought first is not to give way to what comes later.
        let use = store.use(storeKeys(session, request.keys))
        let places = use.pages.map(store.residence)
        let wanted = use.pages.indices.filter { places[$0] == .disk || places[$0] == .absent && shared != nil }
        let queued = prefetching.withLock { waiting in
            let before = waiting[session.tenant] ?? 0
            let queued = wanted.prefix(max(0, Self.prefetchLimit - before))
            if !queued.isEmpty { waiting[session.tenant] = before + queued.count }
            return queued
        }
        for index in queued where places[index] == .disk {
            readers.submit(.background) { [self] in
                _ = store.prefetch(index, of: use)
                endPrefetch(of: session.tenant)
            }
        }
        let elsewhere = queued.filter { places[$0] == .absent }
        if !elsewhere.isEmpty {
            shared?.fetch(elsewhere.map { use.pages[$0] }) { [self] index, outcome in
                guard case .hit(let page, let bytes) = outcome else { return endPrefetch(of: session.tenant) }
                // Others may have to move to disk for it, which nothing that comes behind is to wait for.
                readers.submit(.background) { [self] in
                    _ = store.admitAhead(elsewhere[index], of: use, page, bytes)
                    endPrefetch(of: session.tenant)
                }
            }
        }
        return PrefetchReply(queued: UInt32(clamping: queued.count))
    }

    private func endPrefetch(of tenant: UInt32) {
        prefetching.withLock { waiting in
            let left = waiting[tenant, default: 0] - 1
            waiting[tenant] = left > 0 ? left : nil
        }
    }

    /// Pages of one tenant that may wait to be brought: more than a long context has, and no memory to speak of.
    static let prefetchLimit = 1 << 14

    func touch(_ request: TouchRequest, _ caller: Caller) throws(WireError) -> TouchReply {
        try checkCount(request.keys.count, "keys")
        let session = try session(request.session, caller)
        let pinned: Bool? =
            switch request.pin {
            case .keep: nil
            case .pin: true
            case .unpin: false
            }
        let change = expiry(ttl: request.ttlSeconds)
        // The beginning of a conversation is to count as used last.
        let keys = storeKeys(session, request.keys).reversed()
        let found = keys.count { store.update($0, pinned: pinned, expiry: change) }
        return TouchReply(found: UInt32(clamping: found))
    }

    func drop(_ request: DropRequest, _ caller: Caller) throws(WireError) -> DropReply {
        try checkCount(request.keys.count, "keys")
        let dropped: Int
        if request.session == Wire.none, request.keys.isEmpty {
            dropped = dropAll(of: caller.tenant)
        } else if request.session == Wire.none {
            // One after another: all keys of all namespaces at once would take memory.
            let recent = namespaces.withLock { $0[caller.tenant]?.all ?? [] }
            dropped = recent.reduce(0) { sum, namespace in
                sum + dropEverywhere(request.keys.map { namespace.key($0.vector, tenant: caller.tenant) })
            }
        } else {
            let session = try session(request.session, caller)
            dropped =
                request.keys.isEmpty ? dropPages(of: session.id) : dropEverywhere(storeKeys(session, request.keys))
        }
        return DropReply(dropped: UInt32(clamping: dropped))
    }

    @discardableResult
    func drop(_ keys: [StoreKey]) -> Int {
        removing({ _ in keys }) {
            $0.drop(keys)
            return store.takeOut(keys)
        }
    }

    /// The same where a client asked for it: with other machines they are not to be either.
    private func dropEverywhere(_ keys: [StoreKey]) -> Int {
        let dropped = drop(keys)
        shared?.remove(keys)
        return dropped
    }

    private func dropAll(of tenant: UInt32) -> Int {
        store.removeUnread(tenant: tenant)
        var keys: [StoreKey] = []
        let dropped = removing({ $0.keys(ofTenant: tenant) }) {
            $0.dropAll(tenant: tenant)
            keys = store.keys(tenant: tenant)
            return store.takeOut(keys)
        }
        shared?.remove(keys)
        return dropped
    }

    /// Drops the pages of a session that no other one uses; those others leave it.
    private func dropPages(of session: UInt32) -> Int {
        let (unused, dropped, ready) = removing({ $0.keys(of: session) }) { ledger in
            let (left, ready) = ledger.truncate(session, to: 0)
            let unused = left.filter { !ledger.isUsed($0) }
            ledger.drop(unused)
            return (unused, store.takeOut(unused), ready.filter(ledger.isUsed))
        }
        shared?.remove(unused)
        enqueue(ready)
        return dropped
    }

    /// Takes pages out of ledger and store, and waits until that is written down.
    private func removing<Value>(_ keys: (Ledger) -> [StoreKey], _ body: (inout Ledger) -> Value) -> Value {
        // A coder that is just putting a block in place must not put it over a page pushed after the drop.
        let value = ledger.update(when: { $0.isSettled(keys($0)) }, body)
        // Without the ledger, which no request can do without, whatever the disk takes its time for.
        store.noteRemovals()
        return value
    }

    /// The pages that a FLUSH is about: those of a session or of the caller's tenant; nil for all, which an administrator may.
    func flushed(_ request: FlushRequest, _ caller: Caller) throws(WireError) -> [StoreKey]? {
        guard store.hasDisk else {
            log.info("nothing to flush to: there is no disk tier", metadata: caller.who)
            throw WireError(
                .ioError, field: "disk",
                "there is no disk tier: pages are in RAM only and outlive the daemon only under systemd, which keeps their "
                    + "memory; give disk.budget and disk.directory to have one")
        }
        if request.session != Wire.none { return keys(of: try session(request.session, caller).id) }
        return caller.isAdministrator ? nil : store.keys(tenant: caller.tenant)
    }

    /// Makes pages durable; nil for all.
    func flush(_ keys: [StoreKey]?, _ caller: Caller) throws(WireError) -> FlushReply {
        let covered = keys.map(Set.init)
        encodeWaiting(covered)
        waitForEncodes { covered?.contains($0) ?? true }
        do throws(StoreError) {
            let written = try store.flush(keys)
            return FlushReply(pages: UInt64(written.pages), bytes: UInt64(written.bytes))
        } catch {
            log.error("flush failed", metadata: ["error": .stringConvertible(error)])
            // Where the daemon keeps what, and how that fares, is the administrator's business.
            switch error {
            case .diskFull, .overBudget, .noDiskTier: throw WireError(.ioError, "\(error)")
            default: throw WireError(.ioError, caller.isAdministrator ? "\(error)" : "the disk failed")
            }
        }
    }

    /// Has the disk tier looked after beside everything else: a disk that hangs must not look like a daemon that does.
    func lookAfterDisk() {
        guard store.hasDisk, !isHealing.exchange(true, ordering: .acquiringAndReleasing) else { return }
        readers.submit(.background) { [self] in
            defer { isHealing.store(false, ordering: .releasing) }
            let before = store.statistics
            store.heal()
            let now = store.statistics
            if now.lost > before.lost {
                log.error(
                    "pages are lost: somebody removed, replaced or cut files of the disk tier",
                    metadata: ["pages": "\(now.lost - before.lost)", "directory": "\(configuration.directory ?? "")"])
            }
            switch (before.state, now.state) {
            case (.degraded, .ready): log.notice("the disk tier works again")
            case (_, .degraded(let why)) where now.state != before.state:
                log.warning(
                    "the disk tier does not work; pages stay in RAM until it does", metadata: ["error": "\(why)"])
            default: break
            }
        }
    }

    /// Tries whether the disk takes anything, also where nothing is due: one that hangs or fails is to be known before pages have
    /// to go there.
    func proveDisk() {
        guard store.hasDisk, !isProving.exchange(true, ordering: .acquiringAndReleasing) else { return }
        readers.submit(.background) { [self] in
            store.proveDisk()
            isProving.store(false, ordering: .releasing)
        }
    }

    /// Logs when the kernel begins to refuse memory for pages, and when it gives some again.
    func lookAfterMemory() {
        let refusal = store.ramRefusal
        let before = memoryRefusal.exchange(refusal != nil, ordering: .acquiringAndReleasing)
        if let refusal, !before {
            log.warning(
                "no memory for the rest of the RAM budget: raise the limit of the process, or lower ram.budget",
                metadata: ["error": "\(refusal)", "budget": "\(configuration.ramBudget)"])
        } else if refusal == nil, before {
            log.notice("there is memory for the RAM budget again")
        }
    }

    /// Checks every page of all tenants; `tell` hears about once a second how far that is.
    func verify<E: Error>(_ tell: (VerifyReply) throws(E) -> Void) throws(E) -> VerifyReply {
        log.info("verifying")
        var next = MonotonicClock.nanoseconds
        let found = try store.verify { (progress) throws(E) in
            guard MonotonicClock.nanoseconds >= next else { return }
            next = MonotonicClock.nanoseconds + 1_000_000_000
            try tell(VerifyReply(progress))
        }
        log.log(
            level: found.corrupt > 0 ? .error : .info, "verified",
            metadata: [
                "copies": "\(found.checked)", "bytes": "\(found.bytes)", "corrupt": "\(found.corrupt)",
                "unreadable": "\(found.unreadable)",
            ])
        return VerifyReply(found)
    }
}
