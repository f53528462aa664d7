import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem

extension Engine {
    /// Stores pages. `arena` is the one the request names, nil for inline bytes.
    func push(_ request: PushRequest, arena: Arena?, _ caller: Caller) throws(WireError) -> PushReply {
        let start = MonotonicClock.nanoseconds
        let session = try session(request.session, caller)
        try checkCount(request.entries.count, "entries")
        let keys = request.entries.map { storeKey(session, $0.key) }
        try check(request, session, bytes: UInt64(arena?.byteCount ?? request.inline.count))
        try checkPositions(request, session, keys)
        let source = PushSource(arena: arena, inline: request.inline)
        var outcomes: [PushOutcome] = []
        outcomes.reserveCapacity(keys.count)
        while outcomes.count < keys.count {
            let begin = outcomes.count
            let rooms = rooms(request.entries[begin...], keys[begin...], session)
            if rooms.isEmpty {
                outcomes.append(try store(request.entries[begin], keys[begin], session, source))
                enqueue(ledger.update { $0.release(session.id) })
            }
            let filled = pool.map(rooms.count) { [self] index in
                Result { () throws(WireError) in
                    try fill(rooms[index], request.entries[begin + index], session, source)
                }
            }
            for (page, (entry, key)) in zip(filled, zip(request.entries[begin...], keys[begin...])) {
                let (page, isBad) = try page.get()
                let attributes = attributes(of: entry, session)
                let outcome = store.put(page, attributes: attributes)
                outcomes.append(settle(outcome, entry, key, session, attributes, isBad: isBad, isRenewed: false))
                enqueue(ledger.update { $0.release(session.id) })
            }
        }
        metrics.record(.push, session.tenant, since: start)
        return PushReply(outcomes: outcomes)
    }

    // Everything is checked before anything is stored: a refused request has changed nothing.
    private func check(_ request: PushRequest, _ session: Session, bytes: UInt64) throws(WireError) {
        let limit = configuration.limits.sessionTokens
        for (index, entry) in request.entries.enumerated() {
            func refuse(_ code: ErrorCode, _ field: String, _ message: String) -> WireError {
                WireError(code, field: "entries[\(index)].\(field)", message)
            }
            guard (1...session.pageTokens).contains(Int(entry.tokens)) else {
                throw refuse(.invalidField, "tokens", "\(entry.tokens) is not between 1 and \(session.pageTokens)")
            }
            guard Int(entry.firstPosition) + Int(entry.tokens) <= limit else {
                throw refuse(.limitExceeded, "firstPosition", "positions end at \(limit)")
            }
            let expected = UInt64(entry.tokens) * UInt64(session.tokenBytes)
            guard entry.length == expected else {
                throw refuse(
                    .geometryMismatch, "length", "\(entry.length), but \(entry.tokens) tokens have \(expected)")
            }
            let (end, overflow) = entry.offset.addingReportingOverflow(entry.length)
            guard !overflow, end <= bytes else {
                throw refuse(.arenaBounds, "offset", "\(entry.offset) + \(entry.length) lies beyond \(bytes) bytes")
            }
        }
    }

    private func checkPositions(_ request: PushRequest, _ session: Session, _ keys: [StoreKey]) throws(WireError) {
        var seen: Set<StoreKey> = []
        let entries = zip(request.entries, keys).map { entry, key in
            let isThere = !seen.insert(key).inserted || store.residence(key) != .absent
            return (first: Int(entry.firstPosition), tokens: Int(entry.tokens), present: isThere)
        }
        if let index = ledger.withLock({ $0.conflict(session.id, entries) }) {
            throw WireError(
                .positionConflict, field: "entries[\(index)].firstPosition",
                "\(entries[index].first) lies before the end of what was pushed")
        }
    }

    /// Room for the next pages, which pool threads then fill side by side, as far as they are new and their room is to be
    /// had without waiting for coders. Pages that are on their way in can't make room for others: there are few of them.
    private func rooms(
        _ entries: ArraySlice<PushEntry>, _ keys: ArraySlice<StoreKey>, _ session: Session
    ) -> [PageRoom] {
        let limit = min(64 << 20, configuration.ramBudget / 16)
        var held = 0
        var rooms: [PageRoom] = []
        for (entry, key) in zip(entries, keys) {
            let size = blockBytes(entry, session)
            guard rooms.isEmpty || held + size <= limit, let room = store.room(for: key, byteCount: size)
            else { break }
            held += size
            rooms.append(room)
        }
        return rooms
    }

    private func blockBytes(_ entry: PushEntry, _ session: Session) -> Int {
        session.context.codec.wrappedBytes(element: session.context.layout.element, tokens: Int(entry.tokens))
    }

    private func attributes(of entry: PushEntry, _ session: Session) -> PageAttributes {
        var attributes = PageAttributes(
            priority: session.policy.priority, pinned: session.policy.pin, firstPosition: entry.firstPosition,
            tokens: entry.tokens, rawBytes: entry.length)
        if case .at(let second) = expiry(ttl: session.policy.ttlSeconds) { attributes.expires = second }
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
    private func copy(
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
    private func store(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, _ source: PushSource
    ) throws(WireError) -> PushOutcome {
        let isRenewed = store.residence(key) != .absent && claim(entry, key, session)
        if !isRenewed, let attributes = store.attributes(key) { return present(entry, key, session, attributes) }
        let attributes = attributes(of: entry, session)
        let outcome: PutOutcome
        let isBad: Bool
        do throws(WireError) {
            (outcome, isBad) = try put(entry, key, attributes, session, source, isRenewed: isRenewed)
        } catch {
            if isRenewed { ledger.update { $0.endRenewal(key) } }
            throw error
        }
        return settle(outcome, entry, key, session, attributes, isBad: isBad, isRenewed: isRenewed)
    }

    /// Tells the ledger what became of a page.
    private func settle(
        _ outcome: PutOutcome, _ entry: PushEntry, _ key: StoreKey, _ session: Session, _ attributes: PageAttributes,
        isBad: Bool, isRenewed: Bool
    ) -> PushOutcome {
        if outcome != .stored, isRenewed { ledger.update { $0.endRenewal(key) } }
        switch outcome {
        case .full: return .full
        case .tooLarge: return .tooLarge
        case .present: return present(entry, key, session, store.attributes(key) ?? attributes)
        case .stored: break
        }
        let (first, tokens) = (Int(entry.firstPosition), Int(entry.tokens))
        if isRenewed {
            if ledger.update({ $0.renewed(session.id, key: key, first: first, tokens: tokens) }) { enqueue([key]) }
            if session.policy.ttlSeconds != 0 { store.update(key, expiry: expiry(ttl: session.policy.ttlSeconds)) }
        } else {
            ledger.update { $0.pushed(session.id, key: key, first: first, tokens: tokens, coded: nil) }
        }
        metrics.count(session.tenant) {
            $0.pushed += 1
            $0.renewed += isRenewed ? 1 : 0
            $0.rawBytesIn += entry.length
            $0.nonFinite += isBad ? 1 : 0
        }
        return isBad ? .nonFinite : .stored
    }

    /// Whether a near-lossless coding is there that the page pushed is to replace; then coders leave the key alone until that
    /// is done.
    private func claim(_ entry: PushEntry, _ key: StoreKey, _ session: Session) -> Bool {
        let isClaimed = ledger.wait { ledger -> Bool? in
            // A coder that is just putting its block in place decides what is there.
            guard !ledger.isReplacing(key) else { return nil }
            guard let there = store.attributes(key), there.near, there.tokens == entry.tokens else { return false }
            ledger.beginRenewal(session.id, key: key, first: Int(entry.firstPosition), tokens: Int(entry.tokens))
            return true
        }
        return isClaimed ?? false
    }

    private func present(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, _ attributes: PageAttributes
    ) -> PushOutcome {
        // Only a page of the same length can be the same page; its rows are what the ledger counts.
        ledger.update {
            $0.pushed(
                session.id, key: key, first: Int(entry.firstPosition), tokens: Int(attributes.tokens),
                coded: attributes.coded || attributes.promised)
        }
        if session.policy.ttlSeconds != 0 { store.update(key, expiry: expiry(ttl: session.policy.ttlSeconds)) }
        metrics.count(session.tenant) { $0.present += 1 }
        return .present
    }

    /// Puts the page into the store, straight from where the client has it; also says whether it holds NaN or infinities.
    private func put(
        _ entry: PushEntry, _ key: StoreKey, _ attributes: PageAttributes, _ session: Session, _ source: PushSource,
        isRenewed: Bool
    ) throws(WireError) -> (PutOutcome, isBad: Bool) {
        var isBad = false
        let size = blockBytes(entry, session)
        let deadline = MonotonicClock.nanoseconds + 10_000_000_000
        // Pages that wait for their coder are about to make room: a full store is asked again when one of them is done.
        while true {
            let seen = encodesDone.withLock { $0 }
            let outcome: PutOutcome
            let fill = { (block: UnsafeMutableRawBufferPointer) throws(WireError) in
                try self.copy(entry, session, source, into: block, isBad: &isBad)
            }
            if !isRenewed || store.residence(key) == .absent {
                outcome = try store.put(key, byteCount: size, attributes: attributes, fill: fill)
            } else {
                let isThere = try store.replace(key, byteCount: size, attributes: attributes, fill: fill)
                outcome = isThere ? .stored : .full
            }
            guard outcome == .full, pendingEncodes > 0 else { return (outcome, isBad) }
            guard encodesDone.wait(until: deadline, { $0 != seen ? true : nil }) != nil else { return (.full, isBad) }
        }
    }
}

/// Where the pages of a push are: in the client's arena, or in the request.
private struct PushSource: Sendable {
    let arena: Arena?
    let inline: ArraySlice<UInt8>

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
