import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem

// Blocks that workers made are stored as they are. Of what they hold the daemon knows what their headers say.
extension Engine {
    /// Stores blocks. `arena` is the one the request names, nil for inline bytes.
    func pushBlocks(_ request: PushRequest, arena: Arena?, _ caller: Caller) throws(WireError) -> PushReply {
        let start = MonotonicClock.nanoseconds
        let session = try session(request.session, caller)
        let entries = request.entries
        try checkCount(entries.count, "entries")
        let source = PushSource(arena: arena, inline: request.inline)
        try check(entries, session, bytes: source.byteCount)
        try checkOrder(entries)
        let keys = entries.map { storeKey(session, $0.key) }
        let terms = BlockTerms(session: session, promise: promise(of: session, with: entries, keys))
        // A first look at all of them: a refused request has changed nothing.
        let judged = pool.map(entries.count) { index in
            Result { () throws(WireError) in
                // A copy, as the other side may write at any time.
                let copy = try source.withPage(entries[index]) { [UInt8]($0) }
                return try copy.withUnsafeBytes { block in
                    Result { () throws(WireError) in _ = try terms.header(of: block, entries[index], index) }
                }.get()
            }
        }
        for result in judged { try result.get() }
        let conversation = conversation(of: session, upTo: Int(entries.first?.firstPosition ?? 0), keys)
        var outcomes: [PushOutcome] = []
        outcomes.reserveCapacity(keys.count)
        for (index, key) in keys.enumerated() {
            let before = conversation[..<(conversation.count - keys.count + index)]
            let block = PushedBlock(entry: entries[index], index: index, key: key, source: source, terms: terms)
            outcomes.append(try store(block, after: before))
        }
        metrics.record(.push, session.tenant, since: start)
        return PushReply(outcomes: outcomes)
    }

    /// What the session is promised once the pages are in their places.
    private func promise(of session: Session, with entries: [PushEntry], _ keys: [StoreKey]) -> Promise {
        let pages = zip(entries, keys).map { entry, key in
            SessionPage(key: key, first: Int(entry.firstPosition), tokens: Int(entry.tokens))
        }
        return ledger.withLock { $0.sessions[session.id]?.promise(with: pages) } ?? session.promise(with: pages)
    }

    private func store(_ block: PushedBlock, after: ArraySlice<StoreKey>) throws(WireError) -> PushOutcome {
        let session = block.terms.session
        while true {
            if let there = note(block.entry, block.key, session, isStored: false) {
                putOffEnd(of: block.key, there, session)
                if let outcome = try renew(block, there) { return outcome }
                metrics.count(session.tenant) { $0.present += 1 }
                return .present
            }
            var header: BlockHeader?
            let outcome = try whenThereIsRoom { () throws(WireError) in
                try store.put(
                    block.key, byteCount: Int(block.entry.length), attributes: attributes(of: block, header),
                    after: after
                ) { (room) throws(WireError) in try block.copy(to: room, &header) }
            }
            switch outcome {
            case .full:
                lookAfterMemory()
                return .full
            case .tooLarge: return .tooLarge
            case .present: continue
            case .stored: break
            }
            _ = note(block.entry, block.key, session, isStored: true, isBlock: true)
            if let header { count(header, block) }
            return .stored
        }
    }

    /// Puts a block in the place of a page that is less than the session was promised, or of a raw one as the coder would. It has to do
    /// for everybody else as well, and to keep what is exact there: unlike a page it cannot be coded as others demand. Nil where
    /// what is there stays.
    private func renew(_ block: PushedBlock, _ there: PageAttributes) throws(WireError) -> PushOutcome? {
        let (entry, key, terms) = (block.entry, block.key, block.terms)
        guard there.tokens == entry.tokens else { return nil }
        // What the coder may not touch is not for a worker to code either; of a raw page the ledger knows which rows stay exact.
        let exact: RowSet
        if there.coded {
            guard !isKept(terms.promise, key, there, first: Int(entry.firstPosition), isWindow: true),
                let page = coded(key)
            else { return nil }
            exact = page.exact
        } else {
            guard !there.promised, !there.nonFinite else { return nil }
            exact = RowSet(count: Int(there.tokens))
        }
        guard let before = claim(key) else { return nil }
        var header: BlockHeader?
        var outcome: PutOutcome?
        do throws(WireError) {
            if before.isCoded == there.coded, there.coded || ledger.withLock({ $0.isFree(key) }),
                isEnough(CodedPage(try block.header()), inPlaceOf: exact, key)
            {
                outcome = try putOrReplace(
                    key, byteCount: Int(entry.length), attributes: { attributes(of: block, header) },
                    fill: { (room) throws(WireError) in try block.copy(to: room, &header) })
            }
        } catch {
            enqueue(ledger.update { $0.endRenewal(key, before) })
            throw error
        }
        guard outcome == .stored, let header else {
            enqueue(ledger.update { $0.endRenewal(key, before) })
            return outcome.map { $0 == .tooLarge ? .tooLarge : .full }
        }
        enqueue(
            ledger.update {
                $0.pushed(
                    terms.session.id, key: key, first: Int(entry.firstPosition), tokens: Int(entry.tokens), coded: nil,
                    isBlock: true, retaining: exact)
            })
        metrics.count(terms.session.tenant) { $0.renewed += 1 }
        count(header, block)
        return .stored
    }

    private func isEnough(_ block: CodedPage, inPlaceOf exact: RowSet, _ key: StoreKey) -> Bool {
        guard block.exact.capacity == exact.capacity, block.exact.isSuperset(of: exact) else { return false }
        return ledger.withLock { $0.isEnough(block, for: key) }
    }

    /// - Parameter header: of the bytes that are stored; nil before there are any.
    private func attributes(of block: PushedBlock, _ header: BlockHeader?) -> PageAttributes {
        var attributes = attributes(of: block.entry, block.terms.session, isBad: false)
        attributes.rawBytes = UInt64(header?.rawBytes ?? 0)
        attributes.coded = true
        attributes.lossy = header?.mode.isExact != true
        return attributes
    }

    private func count(_ header: BlockHeader, _ block: PushedBlock) {
        let (session, promise) = (block.terms.session, block.terms.promise)
        let rows = promise.protection.rows(first: header.firstPosition, tokens: header.tokens, window: true)
        let outcome = CodingOutcome(header, promise.choice, protected: rows, session.context)
        let drifting = outcome.map { outcome in ledger.update { $0.count(outcome, for: [session.id]) } } ?? []
        metrics.count(session.tenant) {
            $0.pushed += 1
            $0.rawBytesIn += UInt64(header.rawBytes)
            $0.driftAlarms += UInt64(drifting.count)
            if let outcome { $0.coding.add(outcome) }
        }
        for session in drifting { warn(session) }
        shared?.offer([block.key])
    }
}

/// A block on its way in.
private struct PushedBlock {
    let entry: PushEntry
    let index: Int
    let key: StoreKey
    let source: PushSource
    let terms: BlockTerms

    /// What a copy of it says now; its owner may change it until it is stored.
    func header() throws(WireError) -> BlockHeader {
        let copy = try source.withPage(entry) { [UInt8]($0) }
        return try copy.withUnsafeBytes { block in
            Result { () throws(WireError) in try terms.header(of: block, entry, index) }
        }.get()
    }

    /// Copies it to where it stays and judges it there. Returns the checksum.
    func copy(to room: UnsafeMutableRawBufferPointer, _ header: inout BlockHeader?) throws(WireError) -> UInt64 {
        try source.withPage(entry) { (block) throws(WireError) in room.copyMemory(from: block) }
        let sum = Checksum()
        sum.add(UnsafeRawBufferPointer(room))
        header = try terms.header(of: UnsafeRawBufferPointer(room), entry, index)
        return sum.value
    }
}
