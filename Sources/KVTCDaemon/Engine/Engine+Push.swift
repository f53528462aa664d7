import KVTCCodec
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem

extension Engine {
    /// Stores pages. `arena` is the one the request names, nil for inline bytes.
    func push(_ request: PushRequest, arena: Arena?, _ caller: Caller) throws(WireError) -> PushReply {
        let start = MonotonicClock.nanoseconds
        let session = try session(request.session, caller)
        try checkCount(request.entries.count, "entries")
        let keys = request.entries.map { storeKey(session, $0.key) }
        let source = PushSource(arena: arena, inline: request.inline)
        try check(request.entries, session, bytes: source.byteCount)
        for (index, entry) in request.entries.enumerated() {
            let expected = UInt64(entry.tokens) * UInt64(session.tokenBytes)
            guard entry.length == expected else {
                throw WireError(
                    .geometryMismatch, field: "entries[\(index)].length",
                    "\(entry.length), but \(entry.tokens) tokens have \(expected)")
            }
        }
        try checkOrder(request.entries)
        let first = Int(request.entries.first?.firstPosition ?? 0)
        let conversation = conversation(of: session, upTo: first, keys)
        func before(_ index: Int) -> ArraySlice<StoreKey> { conversation[..<(conversation.count - keys.count + index)] }
        var outcomes: [PushOutcome] = []
        outcomes.reserveCapacity(keys.count)
        while outcomes.count < keys.count {
            let begin = outcomes.count
            let rooms = rooms(
                request.entries[begin...], keys[begin...], session, until: start &+ pushPatience)
            if rooms.isEmpty {
                outcomes.append(
                    try storePage(request.entries[begin], keys[begin], session, source, after: before(begin)))
            }
            let filled = pool.map(rooms.count) { [self] index in
                Result { () throws(WireError) in
                    try fill(rooms[index], request.entries[begin + index], session, source)
                }
            }
            for (page, (entry, key)) in zip(filled, zip(request.entries[begin...], keys[begin...])) {
                let (page, isBad) = try page.get()
                let index = outcomes.count
                let outcome = store.put(
                    page, attributes: attributes(of: entry, session, isBad: isBad), after: before(index))
                outcomes.append(try settle(outcome, entry, key, session, source, after: before(index), isBad: isBad))
            }
        }
        try renewWindow(request.entries, keys, session, source, &outcomes)
        relieve(session.tenant)
        metrics.record(.push, session.tenant, since: start)
        return PushReply(outcomes: outcomes)
    }

    /// Whether the entries name tokens that the session can have, and bytes that are there. Everything is checked before anything
    /// is stored: a refused request has changed nothing.
    func check(_ entries: [PushEntry], _ session: Session, bytes: UInt64) throws(WireError) {
        let limit = limits.sessionTokens
        for (index, entry) in entries.enumerated() {
            func refuse(_ code: ErrorCode, _ field: String, _ message: String) -> WireError {
                WireError(code, field: "entries[\(index)].\(field)", message)
            }
            guard (1...session.pageTokens).contains(Int(entry.tokens)) else {
                throw refuse(.invalidField, "tokens", "\(entry.tokens) is not between 1 and \(session.pageTokens)")
            }
            guard Int(entry.firstPosition) + Int(entry.tokens) <= limit else {
                throw refuse(.limitExceeded, "firstPosition", "positions end at \(limit)")
            }
            let (end, overflow) = entry.offset.addingReportingOverflow(entry.length)
            guard !overflow, end <= bytes else {
                throw refuse(.arenaBounds, "offset", "\(entry.offset) + \(entry.length) lies beyond \(bytes) bytes")
            }
        }
    }

    // Whether the session has pages there already does not matter: it follows the stream wherever that goes on.
    func checkOrder(_ entries: [PushEntry]) throws(WireError) {
        var seen: Set<PageKey> = []
        var end = 0
        for (index, entry) in entries.enumerated() where seen.insert(entry.key).inserted {
            guard Int(entry.firstPosition) >= end else {
                throw WireError(
                    .positionConflict, field: "entries[\(index)].firstPosition",
                    "\(entry.firstPosition) lies before \(end), where the entries before it end")
            }
            end = Int(entry.firstPosition) + Int(entry.tokens)
        }
    }

    /// Room for the next pages, which pool threads then fill side by side, as far as they are new and their room is to be
    /// had without waiting for coders. Pages that are on their way in can't make room for others: there are few of them.
    private func rooms(
        _ entries: ArraySlice<PushEntry>, _ keys: ArraySlice<StoreKey>, _ session: Session, until deadline: UInt64
    ) -> [PageRoom] {
        let limit = min(64 << 20, configuration.ramBudget / 16)
        var held = 0
        var rooms: [PageRoom] = []
        for (entry, key) in zip(entries, keys) {
            let size = blockBytes(entry, session)
            guard rooms.isEmpty || held + size <= limit else { break }
            if store.residence(key) == .absent {
                letCodersGoFirst(size, key.tenant, until: deadline)
            }
            guard let room = store.room(for: key, byteCount: size) else { break }
            held += size
            rooms.append(room)
        }
        return rooms
    }

    func blockBytes(_ entry: PushEntry, _ session: Session) -> Int {
        session.context.codec.wrappedBytes(element: session.context.layout.element, tokens: Int(entry.tokens))
    }

    func attributes(of entry: PushEntry, _ session: Session, isBad: Bool) -> PageAttributes {
        var attributes = PageAttributes(
            priority: session.policy.priority, pinned: session.policy.pin, firstPosition: entry.firstPosition,
            tokens: entry.tokens, rawBytes: entry.length, nonFinite: isBad)
        if case .after(let ttl) = expiry(ttl: session.policy.ttlSeconds) { attributes.ttl = ttl }
        return attributes
    }

    /// Copies a page to where it stays; also says whether it holds NaN or infinities.
    private func fill(
        _ room: PageRoom, _ entry: PushEntry, _ session: Session, _ source: PushSource
    ) throws(WireError) -> (FilledPage, isBad: Bool) {
        var isBad = false
        let page = try room.filled { (block) throws(WireError) in
            try copy(entry, session, source, into: block, isBad: &isBad)
        }
        return (page, isBad)
    }

    /// Returns the checksum. The client may write its arena at any time: what is judged and kept is what is copied here.
    func copy(
        _ entry: PushEntry, _ session: Session, _ source: PushSource, into block: UnsafeMutableRawBufferPointer,
        isBad: inout Bool
    ) throws(WireError) -> UInt64 {
        try source.withPage(entry) { (page) throws(WireError) in
            do throws(CodecError) {
                let wrapped = try session.context.codec.wrap(
                    page: page, layout: session.context.layout, tokens: Int(entry.tokens),
                    firstPosition: Int(entry.firstPosition), into: block)
                isBad = !wrapped.isFinite
                return wrapped.checksum
            } catch { throw WireError(codec: error, field: "entries") }
        }
    }

    /// Stores a page that may be there already, or that has to wait for room.
    private func storePage(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, _ source: PushSource, after: ArraySlice<StoreKey>
    ) throws(WireError) -> PushOutcome {
        if let there = note(entry, key, session, isStored: false) {
            putOffEnd(of: key, there, session)
            if let outcome = try renew(entry, key, there, session.promise, session, source) { return outcome }
            metrics.count(session.tenant) { $0.present += 1 }
            return .present
        }
        var isBad = false
        let outcome = try whenThereIsRoom { () throws(WireError) in
            try store.put(
                key, byteCount: blockBytes(entry, session), attributes: attributes(of: entry, session, isBad: isBad),
                after: after
            ) { (block) throws(WireError) in try copy(entry, session, source, into: block, isBad: &isBad) }
        }
        return try settle(outcome, entry, key, session, source, after: after, isBad: isBad)
    }

    /// What another session, which wants a page for less long, has set is no end for this one.
    func putOffEnd(of key: StoreKey, _ there: PageAttributes, _ session: Session) {
        switch expiry(ttl: session.policy.ttlSeconds) {
        case .after(let ttl): store.update(key, expiry: .afterAtLeast(ttl))
        case .never where there.expires != nil: store.update(key, expiry: .never)
        default: break
        }
    }

    /// Tells the ledger what became of a page.
    private func settle(
        _ outcome: PutOutcome, _ entry: PushEntry, _ key: StoreKey, _ session: Session, _ source: PushSource,
        after: ArraySlice<StoreKey>, isBad: Bool
    ) throws(WireError) -> PushOutcome {
        switch outcome {
        case .full:
            lookAfterMemory()
            return .full
        case .tooLarge: return .tooLarge
        case .present: return try storePage(entry, key, session, source, after: after)
        case .stored: break
        }
        metrics.count(session.tenant) {
            $0.pushed += 1
            $0.rawBytesIn += entry.length
            $0.nonFinite += isBad ? 1 : 0
        }
        // Another session may have come upon it before this one was known to use it, and had it coded.
        if let there = note(entry, key, session, isStored: true), there.coded {
            _ = try renew(entry, key, there, session.promise, session, source)
        }
        return isBad ? .nonFinite : .stored
    }

    /// Makes the session a user of the page that is there or, where `isStored`, of the one it has just put there, which may be a
    /// block: from here on no coder works against its policy. Gives what is there; nil when nothing is.
    func note(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, isStored: Bool, isBlock: Bool = false
    ) -> PageAttributes? {
        // A coder that is just putting its block in place decides what is there.
        let (there, ready) = ledger.update(when: { $0.isSettled([key]) }) { ledger -> (PageAttributes?, [StoreKey]) in
            let there = store.attributes(key)
            guard isStored || there != nil else { return (nil, []) }
            let isCoded = there.map { $0.coded || $0.promised } ?? false
            // Only a page of the same length can be the same page; its rows are what the ledger counts.
            let ready = ledger.pushed(
                session.id, key: key, first: Int(entry.firstPosition), tokens: Int(there?.tokens ?? entry.tokens),
                coded: isStored && (!isCoded || isBlock) ? nil : isCoded, isBlock: isBlock)
            return (there, ready)
        }
        enqueue(ready)
        return there
    }

    /// Asks a store that is full again whenever one of the pages that wait for their coder is done: they are about to make room.
    func whenThereIsRoom<E: Error>(_ put: () throws(E) -> PutOutcome) throws(E) -> PutOutcome {
        let deadline = MonotonicClock.nanoseconds + 10_000_000_000
        while true {
            let seen = encodesDone.withLock { $0 }
            let outcome = try put()
            guard outcome == .full, pendingEncodes > 0, MonotonicClock.nanoseconds < deadline else { return outcome }
            if coders.runNextHere() { continue }
            guard encodesDone.wait(until: deadline, { $0 != seen ? true : nil }) != nil else { return .full }
        }
    }
}

/// Where the pages of a push are: in the client's arena, or in the request.
struct PushSource: Sendable {
    let arena: Arena?
    let inline: ArraySlice<UInt8>

    var byteCount: UInt64 { UInt64(arena?.byteCount ?? inline.count) }

    func withPage<R>(
        _ entry: PushEntry, _ body: (UnsafeRawBufferPointer) throws(WireError) -> R
    ) throws(WireError) -> R {
        guard let arena else {
            // withUnsafeBytes forwards typed errors only through a result.
            return try inline.withUnsafeBytes { bytes in
                let page = UnsafeRawBufferPointer(rebasing: bytes[Int(entry.offset)...].prefix(Int(entry.length)))
                return Result { () throws(WireError) in try body(page) }
            }.get()
        }
        let result = try arena.withWritable(offset: entry.offset, length: entry.length) { (page) throws(WireError) in
            try body(UnsafeRawBufferPointer(page))
        }
        guard let result else { throw WireError(.arenaBounds, field: "entries", "outside the arena") }
        return result
    }
}
