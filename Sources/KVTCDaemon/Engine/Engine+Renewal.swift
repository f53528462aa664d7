import Glibc
import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions
import KVTCStore

// What is there under a key gives way to the page pushed where it is less than the session may rely on.
extension Engine {
    /// Puts a page pushed in the place of the one that is there, if that is not what the session was promised, or holds what is
    /// not finite. Nil where what is there stays.
    func renew(
        _ entry: PushEntry, _ key: StoreKey, _ there: PageAttributes, _ promise: Promise, isWindow: Bool = false,
        _ session: Session, _ source: PushSource
    ) throws(WireError) -> PushOutcome? {
        // A page of another length under the key is the client's mistake; the stored one counts.
        guard there.tokens == entry.tokens else { return nil }
        var isShort = false
        if there.coded {
            isShort = !isKept(promise, key, there, first: Int(entry.firstPosition), isWindow: isWindow)
            // What a pull gives anyway, as after a restored page, is no news; whatever else is wrong with it a pull refuses.
            if isWindow && isShort || !isShort && there.near {
                isShort = try !isSame(key, entry, session, source)
            }
        }
        guard isShort || there.nonFinite && !isWindow else { return nil }
        // What has been exact stays so: a session that has since closed may have protected it.
        let tokens = Int(entry.tokens)
        // All rows, where the block cannot be read now to tell which.
        let all = RowSet.full(tokens)
        let retained = there.promised ? all : there.coded ? coded(key)?.exact ?? all : nil
        guard let before = claim(key) else { return nil }
        // Another thread may have replaced the page between the look and the claim.
        let isBadThere = store.attributes(key)?.nonFinite ?? there.nonFinite
        guard isBadThere || before.isCoded else {
            enqueue(ledger.update { $0.endRenewal(key, before) })
            return nil
        }
        let outcome: PutOutcome
        let isBad: Bool
        do throws(RenewalStop) {
            (outcome, isBad) = try replace(
                entry, key, session, source, takesBad: isShort && isBadThere,
                isPromised: retained?.isEmpty == false)
        } catch {
            enqueue(ledger.update { $0.endRenewal(key, before) })
            switch error {
            case .refused(let error): throw error
            case .notFinite: return isBadThere ? .nonFinite : nil
            }
        }
        guard outcome == .stored else {
            enqueue(ledger.update { $0.endRenewal(key, before) })
            return outcome == .tooLarge ? .tooLarge : .full
        }
        enqueue(
            ledger.update {
                $0.pushed(
                    session.id, key: key, first: Int(entry.firstPosition), tokens: tokens, coded: nil,
                    retaining: retained)
            })
        metrics.count(session.tenant) {
            $0.pushed += 1
            $0.renewed += 1
            $0.rawBytesIn += entry.length
        }
        return isBad ? .nonFinite : .stored
    }

    /// Once the end of a push is known: pages of the window that was reached, as far as they were there and are lossy, give way
    /// to those pushed.
    func renewWindow(
        _ entries: [PushEntry], _ keys: [StoreKey], _ session: Session, _ source: PushSource,
        _ outcomes: inout [PushOutcome]
    ) throws(WireError) {
        guard let promise = ledger.withLock({ $0.sessions[session.id]?.promise }) else { return }
        for (index, entry) in entries.enumerated()
        // A page just stored can have been found and coded by another session before this one was known to use it.
        where ![.full, .tooLarge].contains(outcomes[index])
            && Int(entry.firstPosition) + Int(entry.tokens) > promise.protection.windowBegin
        {
            guard let there = store.attributes(keys[index]),
                let outcome = try renew(entry, keys[index], there, promise, isWindow: true, session, source)
            else { continue }
            outcomes[index] = outcome
        }
    }

    func isKept(
        _ promise: Promise, _ key: StoreKey, _ there: PageAttributes, first: Int, isWindow: Bool
    ) -> Bool {
        guard promise.asks(first: first, tokens: Int(there.tokens), window: isWindow) else { return true }
        // Pages on disk that earlier versions coded would have to be read to tell; they are taken for exact.
        guard there.lossy || store.residence(key) == .ram, let coded = coded(key) else { return true }
        return promise.isKept(by: coded, first: first, window: isWindow)
    }

    /// Whether a pull of the coded page would give the very bytes that are pushed.
    private func isSame(
        _ key: StoreKey, _ entry: PushEntry, _ session: Session, _ source: PushSource
    ) throws(WireError) -> Bool {
        let (codec, layout) = (session.context.codec, session.context.layout)
        let outcome = store.read(key) { block -> [UInt8]? in
            var page = [UInt8](repeating: 0, count: Int(entry.length))
            let isDecoded: Void? = page.withUnsafeMutableBytes { page in
                try? codec.decode(block: block, layers: 0..<codec.geometry.layers, layout: layout, into: page)
            }
            return isDecoded.map { page }
        }
        guard case .hit(let decoded?) = outcome else { return false }
        return try source.withPage(entry) { (page) throws(WireError) in
            decoded.withUnsafeBytes { decoded in
                guard let first = decoded.baseAddress, let other = page.baseAddress, decoded.count == page.count else {
                    return false
                }
                return memcmp(first, other, page.count) == 0
            }
        }
    }

    /// Keeps others from the key until the renewal ends. Gives what its page was; nil when no session uses it any more.
    func claim(_ key: StoreKey) -> LedgerPage.Phase? {
        ledger.update(when: { $0.isSettled([key]) }) { $0.beginRenewal(key) }
    }

    private enum RenewalStop: Error {
        case refused(WireError)
        case notFinite
    }

    /// Only finite pages replace others, unless `takesBad`.
    private func replace(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, _ source: PushSource, takesBad: Bool, isPromised: Bool
    ) throws(RenewalStop) -> (PutOutcome, isBad: Bool) {
        let size = blockBytes(entry, session)
        var isBad = false
        func attributes() -> PageAttributes {
            var attributes = self.attributes(of: entry, session, isBad: isBad)
            attributes.promised = isPromised
            return attributes
        }
        func fill(_ block: UnsafeMutableRawBufferPointer) throws(RenewalStop) -> UInt64 {
            let checksum: UInt64
            do throws(WireError) {
                checksum = try copy(entry, session, source, into: block, isBad: &isBad)
            } catch { throw .refused(error) }
            if isBad, !takesBad { throw .notFinite }
            return checksum
        }
        let outcome = try putOrReplace(key, byteCount: size, attributes: attributes, fill: fill)
        return (outcome, isBad)
    }

    /// Puts bytes under a key, whether or not there are others.
    func putOrReplace<E: Error>(
        _ key: StoreKey, byteCount: Int, attributes: () -> PageAttributes,
        fill: (UnsafeMutableRawBufferPointer) throws(E) -> UInt64
    ) throws(E) -> PutOutcome {
        try whenThereIsRoom { () throws(E) in
            if store.residence(key) == .absent {
                let outcome = try store.put(key, byteCount: byteCount, attributes: attributes(), fill: fill)
                guard outcome == .present else { return outcome }
            }
            return try store.replace(key, byteCount: byteCount, attributes: attributes(), fill: fill) ? .stored : .full
        }
    }
}
