import KVTCCodec
import KVTCSessions
import KVTCStore
import KVTCSystem

extension Engine {
    /// Encode jobs that wait or run.
    var pendingEncodes: Int { encodesPending.load(ordering: .acquiring) }

    /// Hands pages that the ledger counts as queued to the coder. Until they are coded they may move to disk but are not
    /// dropped.
    ///
    /// Coders have threads of their own, which leave the processor to those that clients wait for: no pull waits for one.
    func enqueue(_ keys: [StoreKey], then goOn: (@Sendable () -> Void)? = nil) {
        for key in keys {
            let isHeld = store.hold(key)
            encodesPending.add(1, ordering: .acquiringAndReleasing)
            coders.submit(.background) { [self] in
                encode(key)
                if isHeld { store.unhold(key) }
                encodesPending.subtract(1, ordering: .acquiringAndReleasing)
                goOn?()
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
                    block: bytes, isVerified: true, mode: plan.choice.mode, quality: plan.choice.quality,
                    protected: plan.protected,
                    keepOutliers: plan.choice.keepsOutliers)
            }
        }
        switch outcome {
        // The disk failed to deliver it this time.
        case .miss where store.residence(key) != .absent: giveUp(key, plan, in: .encoding)
        case .miss: forget(key)
        case .corrupt:
            log.error("page corrupt before encoding", metadata: ["key": "\(key)"])
            forget(key)
        case .hit(.failure(let error)):
            log.error("page not encodable", metadata: ["key": "\(key)", "error": .stringConvertible(error)])
            metrics.count(key.tenant) { $0.errors += 1 }
            giveUp(key, plan, in: .encoding)
        case .hit(.success(let block)):
            metrics.record(.encode, key.tenant, since: start)
            finish(key, plan, block)
        }
    }

    /// Unless the page has been pushed anew meanwhile.
    private func forget(_ key: StoreKey) {
        ledger.update { if store.residence(key) == .absent { $0.drop([key]) } }
    }

    private func finish(_ key: StoreKey, _ plan: EncodePlan, _ block: [UInt8]) {
        switch ledger.update({ $0.endEncode(key, plan) }) {
        case .forget: return
        case .again: enqueue([key])
        case .replace:
            // Without room for the block the page stays raw, which is worse for the budget and never for the bytes.
            guard let header = place(block, of: key, plan) else { return giveUp(key, plan, in: .replacing) }
            let outcome = CodingOutcome(header, plan: plan)
            let drifting = ledger.update {
                $0.endReplace(key, generation: plan.generation, coded: CodedPage(header), outcome: outcome)
            }
            metrics.count(key.tenant) {
                $0.encoded += 1
                $0.driftAlarms += UInt64(drifting.count)
                if let outcome { $0.coding.add(outcome) }
            }
            for session in drifting { warn(session) }
            shared?.offer([key])
        }
    }

    /// Puts a block in the raw one's place; nil where there is no room for it.
    private func place(_ block: [UInt8], of key: StoreKey, _ plan: EncodePlan) -> BlockHeader? {
        guard var attributes = store.attributes(key),
            let header = try? block.withUnsafeBytes({ try BlockHeader.parse($0, isVerified: true) })
        else { return nil }
        (attributes.coded, attributes.promised) = (true, false)
        attributes.lossy = !header.mode.isExact
        attributes.near = plan.choice.near != nil && attributes.lossy
        return store.replace(key, bytes: block, attributes: attributes) ? header : nil
    }

    /// Leaves a page raw for good. The store has to know, as the ledger forgets whose rows were protected once no session uses
    /// the page: it must not be coded later without them.
    ///
    /// A renewal that has claimed the key meanwhile, so that the job's phase is over, decides what becomes of it.
    private func giveUp(_ key: StoreKey, _ plan: EncodePlan, in phase: LedgerPage.Phase) {
        ledger.update {
            guard let page = $0.pages[key], page.generation == plan.generation, page.phase == phase else { return }
            store.update(key, promised: true, waits: false)
            $0.giveUp(key, plan)
        }
        store.writeMarks(key)
    }

    /// What a page is; nil when it is not there or cannot be read.
    func coded(_ key: StoreKey) -> CodedPage? {
        if let known = ledger.withLock({ $0.coded(key) }) { return known }
        guard case .hit(let header?) = store.read(key, { try? BlockHeader.parse($0, isVerified: true) }) else {
            return nil
        }
        let coded = CodedPage(header)
        ledger.update { $0.resolve(key, coded) }
        return coded
    }

    func warn(_ session: Session) {
        log.warning(
            "session drifts from its profile: calibrate anew with texts like its own, or ask for a lower ratio",
            metadata: [
                "session": "\(session.id)", "name": "\(session.name)", "pages": "\(session.drift.pages)",
                "profile": "\(session.context.codec.profile?.id.description.prefix(12) ?? "")",
                "distortion": "\(((session.drift.factor ?? 0) * 10).rounded() / 10) times what is expected",
            ])
    }

    /// Hands the windows of sessions that rest for long enough to the coder, where their policies have them near-lossless.
    func restIdleSessions(now: UInt64) {
        let patience = UInt64(configuration.nearAfterSeconds) * 1_000_000_000
        guard now >= patience else { return }
        enqueue(ledger.update { $0.markIdle(unusedSince: now - patience) })
    }

    /// Waits until none of the pages is with its coder or waits for it; false when the time was over first.
    @discardableResult
    func waitForEncodes(until deadline: UInt64? = nil, _ isCovered: @escaping (StoreKey) -> Bool) -> Bool {
        ledger.wait(until: deadline) { ledger -> Bool? in
            ledger.pages.keys.contains { isCovered($0) && ledger.isPending($0) } ? nil : true
        } ?? false
    }
}
