import KVTCCodec
import KVTCStore
import KVTCSystem

extension Engine {
    /// Encode jobs that wait or run.
    var pendingEncodes: Int { encodesPending.load(ordering: .acquiring) }

    /// Hands pages that the ledger counts as queued to the coder. Until they are coded they may move to disk but are not
    /// dropped.
    func enqueue(_ keys: [StoreKey]) {
        for key in keys {
            let isHeld = store.hold(key)
            encodesPending.add(1, ordering: .acquiringAndReleasing)
            pool.submit(.background) { [self] in
                encode(key)
                if isHeld { store.unhold(key) }
                encodesPending.subtract(1, ordering: .acquiringAndReleasing)
                encodesDone.update { $0 += 1 }
            }
        }
    }

    private func encode(_ key: StoreKey) {
        guard let plan = ledger.update({ $0.beginEncode(key) }) else { return }
        let start = MonotonicClock.nanoseconds
        let outcome = store.read(key) { bytes in
            Result { () throws(CodecError) in
                try plan.context.codec.encode(
                    block: bytes, mode: plan.choice.mode, quality: plan.choice.quality, protected: plan.protected)
            }
        }
        switch outcome {
        case .miss: ledger.update { $0.drop([key], isTruncation: false) }
        case .corrupt:
            log.error("page corrupt before encoding", metadata: ["key": "\(key)"])
            ledger.update { $0.drop([key], isTruncation: false) }
        case .hit(.failure(let error)):
            log.error("page not encodable", metadata: ["key": "\(key)", "error": "\(error)"])
            metrics.count(key.tenant) { $0.errors += 1 }
            ledger.update { $0.giveUp(key, plan) }
        case .hit(.success(let block)):
            metrics.record(.encode, key.tenant, since: start)
            finish(key, plan, block)
        }
    }

    private func finish(_ key: StoreKey, _ plan: EncodePlan, _ block: [UInt8]) {
        switch ledger.update({ $0.endEncode(key, plan) }) {
        case .forget: return
        case .again: enqueue([key])
        case .replace:
            var replaced = false
            var exact: RowSet?
            if var attributes = store.attributes(key) {
                attributes.coded = true
                replaced = store.replace(key, bytes: block, attributes: attributes)
            }
            if replaced {
                exact = block.withUnsafeBytes { Engine.exactRows($0) }
                metrics.count(key.tenant) { $0.encoded += 1 }
            }
            // Without room for the block the page stays raw, which is worse for the budget and never for the bytes.
            ledger.update { $0.endReplace(key, generation: plan.generation, exact: exact) }
        }
    }

    /// Waits until none of the pages is with its coder or waits for it.
    func waitForEncodes(_ isCovered: @escaping (StoreKey) -> Bool) {
        _ = ledger.wait { ledger -> Bool? in
            ledger.pages.keys.contains { isCovered($0) && ledger.isPending($0) } ? nil : true
        }
    }
}
