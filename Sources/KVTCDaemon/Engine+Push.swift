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
        var outcomes: [PushOutcome] = []
        outcomes.reserveCapacity(keys.count)
        for (entry, key) in zip(request.entries, keys) {
            let outcome = try store(entry, key, session, arena: arena, inline: request.inline)
            outcomes.append(outcome)
            enqueue(ledger.update { $0.release(session.id) })
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

    private func store(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, arena: Arena?, inline: ArraySlice<UInt8>
    ) throws(WireError) -> PushOutcome {
        let isRenewed = store.residence(key) != .absent && claim(entry, key, session)
        if !isRenewed, let attributes = store.attributes(key) { return present(entry, key, session, attributes) }
        var attributes = PageAttributes(
            priority: session.policy.priority, pinned: session.policy.pin, firstPosition: entry.firstPosition,
            tokens: entry.tokens, rawBytes: entry.length)
        if case .at(let second) = expiry(ttl: session.policy.ttlSeconds) { attributes.expires = second }
        let outcome: PutOutcome
        let isBad: Bool
        do throws(WireError) {
            (outcome, isBad) = try put(
                entry, key, attributes, session, isRenewed: isRenewed, arena: arena, inline: inline)
        } catch {
            if isRenewed { ledger.update { $0.endRenewal(key) } }
            throw error
        }
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
                coded: attributes.coded)
        }
        if session.policy.ttlSeconds != 0 { store.update(key, expiry: expiry(ttl: session.policy.ttlSeconds)) }
        metrics.count(session.tenant) { $0.present += 1 }
        return .present
    }

    /// Puts the page into the store, straight from where the client has it; also says whether it holds NaN or infinities.
    private func put(
        _ entry: PushEntry, _ key: StoreKey, _ attributes: PageAttributes, _ session: Session, isRenewed: Bool,
        arena: Arena?, inline: ArraySlice<UInt8>
    ) throws(WireError) -> (PutOutcome, isBad: Bool) {
        guard let arena else {
            // withUnsafeBytes forwards typed errors only through a result.
            return try inline.withUnsafeBytes { bytes in
                let page = UnsafeRawBufferPointer(rebasing: bytes[Int(entry.offset)...].prefix(Int(entry.length)))
                return Result { () throws(WireError) in try put(page, entry, key, attributes, session, isRenewed) }
            }.get()
        }
        let result = try arena.withWritable(offset: entry.offset, length: entry.length) { (page) throws(WireError) in
            try put(UnsafeRawBufferPointer(page), entry, key, attributes, session, isRenewed)
        }
        guard let result else { throw WireError(.arenaBounds, field: "entries", "outside the arena") }
        return result
    }

    private func put(
        _ page: UnsafeRawBufferPointer, _ entry: PushEntry, _ key: StoreKey, _ attributes: PageAttributes,
        _ session: Session, _ isRenewed: Bool
    ) throws(WireError) -> (PutOutcome, isBad: Bool) {
        let context = session.context
        var isBad = false
        let size = context.codec.wrappedBytes(element: context.layout.element, tokens: Int(entry.tokens))
        let deadline = MonotonicClock.nanoseconds + 10_000_000_000
        // Pages that wait for their coder are about to make room: a full store is asked again when one of them is done.
        while true {
            let seen = encodesDone.withLock { $0 }
            let outcome: PutOutcome
            do throws(CodecError) {
                let fill = { (block: UnsafeMutableRawBufferPointer) throws(CodecError) in
                    // The client may write its arena at any time: what is judged and kept is what is copied here.
                    isBad = try !context.codec.wrap(
                        page: page, layout: context.layout, tokens: Int(entry.tokens),
                        firstPosition: Int(entry.firstPosition), into: block)
                }
                if !isRenewed || store.residence(key) == .absent {
                    outcome = try store.put(key, byteCount: size, attributes: attributes, fill: fill)
                } else {
                    let isThere = try store.replace(key, byteCount: size, attributes: attributes, fill: fill)
                    outcome = isThere ? .stored : .full
                }
            } catch { throw WireError(codec: error, field: "entries") }
            guard outcome == .full, pendingEncodes > 0 else { return (outcome, isBad) }
            guard encodesDone.wait(until: deadline, { $0 != seen ? true : nil }) != nil else { return (.full, isBad) }
        }
    }
}
