import KVTCCodec
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem

// What is there, and leases that keep it there.
extension Engine {
    func lookup(_ request: LookupRequest, _ caller: Caller) throws(WireError) -> LookupReply {
        let (lease, found) = try find(request, caller)
        let run = found.prefix { $0.residence != .absent }.count
        return LookupReply(lease: lease, leadingRun: UInt32(run), residence: found.map(\.residence))
    }

    func lookupBlocks(_ request: LookupBlocksRequest, _ caller: Caller) throws(WireError) -> LookupBlocksReply {
        let (lease, found) = try find(request.lookup, caller)
        let run = found.prefix { $0.residence != .absent }.count
        return LookupBlocksReply(lease: lease, leadingRun: UInt32(run), pages: found.map(stored))
    }

    private func stored(_ found: Found) -> StoredPage {
        guard found.residence != .absent else { return StoredPage() }
        // Of blocks that have to be brought first the mode is not known.
        let mode =
            found.attributes.coded
            ? store.peek(found.key) { try? BlockHeader.parse($0, isVerified: true).mode } ?? nil : .raw
        return StoredPage(
            residence: found.residence, mode: mode, tokens: found.attributes.tokens, length: UInt64(found.length))
    }

    /// A page that was looked for, as the session that asked may have it.
    private struct Found {
        let key: StoreKey
        var residence: KVTCProtocol.Residence
        var attributes: PageAttributes
        var length: Int
    }

    /// Looks pages up, and takes the lease that is asked for.
    private func find(
        _ request: LookupRequest, _ caller: Caller
    ) throws(WireError) -> (lease: UInt64, found: [Found]) {
        try checkCount(request.keys.count, "keys")
        let session = try session(request.session, caller)
        let keys = storeKeys(session, request.keys)
        // What is then pulled piece by piece stays in order.
        let use = store.use(keys).place
        ledger.withLock { $0.change(session.id) { $0.lookup = (use, MonotonicClock.nanoseconds) } }
        var (lease, found) = (UInt64(0), survey(keys, session))
        if request.leaseMs > 0, found.contains(where: { $0.residence != .absent }) {
            lease = try takeLease(keys, milliseconds: UInt64(request.leaseMs), caller)
            // What the reply calls present must not have gone away before the lease.
            found = survey(keys, session)
        }
        askOthers(&found, session)
        return (lease, found)
    }

    /// What is not here other machines may have. No lease covers that before it is brought.
    private func askOthers(_ found: inout [Found], _ session: Session) {
        guard let shared else { return }
        let missing = found.indices.filter {
            found[$0].residence == .absent && store.residence(found[$0].key) == .absent
        }
        guard !missing.isEmpty else { return }
        for case (let index, let page?) in zip(missing, shared.ask(missing.map { found[$0].key }))
        where !page.attributes.lossy || isKept(session.promise, found[index].key, page.attributes, at: .absent) {
            (found[index].residence, found[index].attributes) = (.shared, page.attributes)
            found[index].length = page.length
        }
    }

    /// A limited number under each lock of the store. What a PULL would not give the session is absent.
    private func survey(_ keys: [StoreKey], _ session: Session) -> [Found] {
        let promise = session.promise
        return stride(from: 0, to: keys.count, by: 256).flatMap { first in
            let part = keys[first..<min(first + 256, keys.count)]
            return zip(part, store.survey(part)).map { key, page in
                let residence: KVTCProtocol.Residence =
                    switch page.residence {
                    case .absent: .absent
                    case let place
                    where page.attributes.lossy && !isKept(promise, key, page.attributes, at: place): .absent
                    case .disk: .disk
                    case .ram: page.attributes.coded ? .coded : .raw
                    }
                return Found(key: key, residence: residence, attributes: page.attributes, length: page.length)
            }
        }
    }

    /// Whether the lossy page is no worse than the session was promised, as a PULL sees it. Of a page that is only on disk, and
    /// that no session uses, it takes reading the page to know; it counts as kept.
    func isKept(
        _ promise: Promise, _ key: StoreKey, _ there: PageAttributes, at place: KVTCStore.Residence
    ) -> Bool {
        let (first, tokens) = (Int(there.firstPosition), Int(there.tokens))
        guard promise.asks(first: first, tokens: tokens, window: false) else { return true }
        guard !promise.choice.mode.isExact else { return false }
        let coded =
            place == .ram
            ? store.peek(key) { try? BlockHeader.parse($0, isVerified: true) }.flatMap(\.self).map(CodedPage.init)
            : ledger.withLock { $0.coded(key) }
        return coded.map { promise.isKept(by: $0, first: first, window: false) } ?? true
    }

    private func takeLease(_ keys: [StoreKey], milliseconds: UInt64, _ caller: Caller) throws(WireError) -> UInt64 {
        let limits = limits
        guard milliseconds <= UInt64(limits.leaseSeconds) * 1000 else {
            throw WireError(.limitExceeded, field: "leaseMs", "longer than \(limits.leaseSeconds) seconds")
        }
        let now = store.milliseconds
        let held = leases.withLock { leases in
            if leases.count >= limits.leasesPerUser { leases = leases.filter { $0.value.deadline > now } }
            return leases.values.filter { $0.tenant == caller.tenant && $0.deadline > now }.map(\.keys)
        }
        guard held.count < limits.leasesPerUser else {
            throw WireError(.limitExceeded, field: "leaseMs", "more than \(limits.leasesPerUser) leases of one user")
        }
        // A lease takes memory for every key.
        guard held.reduce(keys.count, +) <= limits.keys else {
            throw WireError(
                .limitExceeded, field: "keys",
                "more than \(limits.keys) keys under the leases of one user: release some")
        }
        let id = store.lease(keys, until: now + milliseconds)
        leases.withLock { leases in
            leases[id] = Lease(
                tenant: caller.tenant, connection: caller.connection, keys: keys.count, deadline: now + milliseconds,
                milliseconds: milliseconds)
        }
        return id
    }

    private func endLease(_ id: UInt64) {
        leases.withLock { $0[id] = nil }
        _ = store.release(id)
    }

    func endLeases(of connection: UInt64) {
        for id in leases.withLock({ $0.filter { $0.value.connection == connection }.keys }) { endLease(id) }
    }

    /// Keeps a lease from ending while a pull that names it goes on; ``letGo(_:)`` has to follow. False when there is none of
    /// that number, or its time is over: then the pull goes on without.
    func keepUp(_ id: UInt64, _ caller: Caller) -> Bool {
        let now = store.milliseconds
        return leases.withLock { leases in
            guard let lease = leases[id], lease.deadline > now, lease.tenant == caller.tenant || caller.isAdministrator,
                store.extend(id, until: .max)
            else { return false }
            leases[id]?.deadline = .max
            leases[id]?.pulls += 1
            return true
        }
    }

    /// The lease lasts its time once more after the last of the pulls.
    func letGo(_ id: UInt64) {
        leases.withLock { leases in
            guard var lease = leases[id] else { return }
            lease.pulls -= 1
            if lease.pulls == 0 {
                lease.deadline = store.milliseconds + lease.milliseconds
                _ = store.extend(id, until: lease.deadline)
            }
            leases[id] = lease
        }
    }

    /// Ends a lease. One that has ended already, or that is another tenant's, is none to say anything about.
    func release(_ request: ReleaseRequest, _ caller: Caller) -> EmptyReply {
        let isOwn = leases.withLock { leases in
            leases[request.lease].map { $0.tenant == caller.tenant || caller.isAdministrator } ?? false
        }
        if isOwn { endLease(request.lease) }
        return EmptyReply()
    }
}
