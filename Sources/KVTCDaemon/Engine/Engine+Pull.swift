import KVTCCodec
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem
import Synchronization

extension Engine {
    /// Gets pages back, decoded or `asStored`. `emit` is called on the caller's thread with each part as it is ready; when it
    /// throws, the rest is dropped.
    func pull<E: Error>(
        _ request: PullRequest, asStored: Bool = false, arena: Arena?, _ caller: Caller,
        emit: (ReadyPart) throws(E) -> Void
    ) throws(PullFailure<E>) -> PullReply {
        let start = MonotonicClock.nanoseconds
        let session: Session
        do throws(WireError) {
            session = try self.session(request.session, caller)
            try checkCount(request.entries.count, "entries")
            try check(request, session, arena)
        } catch { throw .refused(error) }
        let layers = session.context.codec.geometry.layers
        let begin = Int(request.layerBegin)
        let end = request.layerEnd == 0 ? layers : Int(request.layerEnd)
        let step = request.layerStep == 0 ? end - begin : Int(request.layerStep)
        let pages = request.entries.enumerated().map { index, entry in
            PulledPage(key: storeKey(session, entry.key), entry: entry, index: UInt32(index))
        }
        let isLeased = request.lease != 0 && keepUp(request.lease, caller)
        defer { if isLeased { letGo(request.lease) } }
        // Pieces of what was looked up a moment ago are one use.
        let lookup = session.lookup.flatMap { start - min(start, $0.time) < 10_000_000_000 ? $0.place : nil }
        let work = PullWork(
            use: store.use(pages.map(\.key), continuing: lookup), pages: pages,
            steps: stride(from: begin, to: end, by: step).map { $0..<min($0 + step, end) },
            layers: begin..<end, session: session, arena: arena, asStored: asStored)
        let reply: PullReply
        do throws(E) { reply = try deliver(work, emit) } catch { throw .notDelivered(error) }
        metrics.record(.pull, session.tenant, since: start)
        // What blocks cost is up to who decodes them, and some layers are no page.
        if !asStored, begin == 0, end == layers {
            metrics.record(
                work.state.withLock { $0.effort },
                of: PullCosts.Shape(
                    profile: session.context.codec.profile?.id, tokenBytes: session.tokenBytes),
                session.tenant, since: start)
        }
        metrics.count(session.tenant) {
            $0.hits += UInt64(reply.hits)
            $0.misses += UInt64(reply.misses)
            $0.corrupt += UInt64(reply.corrupt)
        }
        return reply
    }

    private func check(_ request: PullRequest, _ session: Session, _ arena: Arena?) throws(WireError) {
        let layers = session.context.codec.geometry.layers
        let end = request.layerEnd == 0 ? layers : Int(request.layerEnd)
        guard end <= layers, Int(request.layerBegin) < end else {
            throw WireError(
                .invalidField, field: "layerEnd",
                "layers \(request.layerBegin)..<\(end) are not among the model's \(layers)")
        }
        guard let arena else { return }
        for (index, entry) in request.entries.enumerated()
        where !arena.contains(offset: entry.offset, length: entry.capacity) {
            throw WireError(
                .arenaBounds, field: "entries[\(index)].offset",
                "\(entry.offset) + \(entry.capacity) lies beyond \(arena.byteCount) bytes")
        }
    }

    private func deliver<E: Error>(_ work: PullWork, _ emit: (ReadyPart) throws(E) -> Void) throws(E) -> PullReply {
        var worst = [PullOutcome](repeating: .hit, count: work.pages.count)
        var order = PartOrder(pages: work.pages.count, first: work.layers.lowerBound)
        // Parts that wait for a slow client are small where the bytes are in its arena; others hold pages.
        let ahead = work.arena == nil ? max(8, 4 * configuration.workers) : max(64, 4 * configuration.workers)
        var submitted = 0
        while true {
            let room = work.state.withLock { ahead - $0.running - $0.parts.count } - order.held
            for _ in 0..<max(0, min(room, work.jobs - submitted)) {
                submit(work, submitted)
                submitted += 1
            }
            let isSubmitted = submitted == work.jobs
            let next = work.state.wait { state -> (parts: [ReadyPart], isOver: Bool)? in
                let isOver = isSubmitted && state.running == 0
                guard !state.parts.isEmpty || isOver || (!isSubmitted && state.running == 0) else { return nil }
                defer { state.parts = [] }
                return (state.parts, isOver)
            }
            guard let next else { break }
            for ready in next.parts.flatMap({ order.arrange($0) }) {
                if ready.part.outcome != .hit { worst[Int(ready.part.entry)] = ready.part.outcome }
                try emit(ready)
            }
            if next.isOver { break }
        }
        func count(_ outcome: PullOutcome) -> UInt32 { UInt32(worst.count { $0 == outcome }) }
        return PullReply(
            hits: count(.hit), misses: count(.miss), corrupt: count(.corrupt),
            other: count(.noSpace) + count(.busy))
    }

    // Layer by layer over all pages: what the worker computes first is what it gets first.
    private func submit(_ work: PullWork, _ job: Int) {
        work.state.withLock { $0.running += 1 }
        let page = work.pages[job % work.pages.count]
        let step = job / work.pages.count
        let decoding: @Sendable () -> Void = { [self] in
            let part = decode(page, step, work)
            work.state.update {
                if let part { $0.parts.append(part) }
                $0.running -= 1
            }
        }
        // One page is done sooner here than by waking another thread and being woken by it.
        guard work.jobs > 1 else { return decoding() }
        guard step == 0, store.residence(page.key) == .disk else { return pool.submit(.urgent, decoding) }
        // Threads that compute do not wait for the disk, and the disk gets several requests at a time.
        readers.submit(.urgent) { [self] in
            let start = MonotonicClock.nanoseconds
            page.state.withLock { $0 = .found(store.borrow(Int(page.index), of: work.use)) }
            let elapsed = MonotonicClock.nanoseconds - start
            work.state.withLock { $0.effort.add(.disk, tokens: 0, nanoseconds: elapsed) }
            pool.submit(.urgent, decoding)
        }
    }

    // MARK: - On the pool's threads

    private func decode(_ page: PulledPage, _ step: Int, _ work: PullWork) -> ReadyPart? {
        let (all, range, arena) = (work.layers, work.steps[step], work.arena)
        func failure(_ outcome: PullOutcome) -> ReadyPart {
            ReadyPart(
                part: PullPart(
                    entry: page.index, layerBegin: UInt16(all.lowerBound), layerEnd: UInt16(all.upperBound),
                    outcome: outcome, offset: arena == nil ? 0 : page.entry.offset, length: 0))
        }
        let start = MonotonicClock.nanoseconds
        // One failure is told once, whatever the number of steps.
        let opened = page.state.withLock { state -> Result<OpenPage?, PullStop> in
            let found: ReadOutcome<BorrowedPage>
            switch state {
            case .failed: return .success(nil)
            case .open(let page): return .success(page)
            case .found(let outcome): found = outcome
            case .untouched: found = store.borrow(Int(page.index), of: work.use)
            }
            do throws(PullStop) {
                let opened = try open(page, found, work)
                state = step + 1 < work.steps.count && keep(opened.byteCount, work) ? .open(opened) : .untouched
                return .success(opened)
            } catch {
                state = .failed
                return .failure(error)
            }
        }
        let source: OpenPage
        switch opened {
        case .success(nil): return nil
        case .success(let found?): source = found
        case .failure(let stop): return failure(stop.outcome)
        }
        let before = byteCount(of: source, all.lowerBound..<range.lowerBound, work)
        let length = byteCount(of: source, range, work)
        var ready = ReadyPart(
            part: PullPart(
                entry: page.index, layerBegin: UInt16(range.lowerBound), layerEnd: UInt16(range.upperBound),
                outcome: .hit, offset: UInt64(before), length: UInt64(length)))
        do throws(CodecError) {
            if let arena {
                ready.part.offset += page.entry.offset
                if try !writeInPlace(source, range, work, arena, ready.part) {
                    try writeFromDisk(page, range, work, arena, ready.part)
                }
            } else {
                ready.bytes = try inlineBytes(source, range, work, length)
            }
        } catch {
            log.error("page not decodable", metadata: ["key": "\(page.key)", "error": "\(error)"])
            page.state.withLock { $0 = .failed }
            return failure(.corrupt)
        }
        if !work.asStored { metrics.record(.decode, page.key.tenant, since: start) }
        let elapsed = MonotonicClock.nanoseconds - start
        work.state.withLock {
            $0.effort.add(source.source, tokens: step == 0 ? source.tokens : 0, nanoseconds: elapsed)
        }
        metrics.count(page.key.tenant) { $0.bytesReturned += UInt64(length) }
        return ready
    }

    private func keep(_ bytes: Int, _ work: PullWork) -> Bool {
        work.state.withLock { state in
            guard state.kept + bytes <= PullWork.keptLimit else { return false }
            state.kept += bytes
            return true
        }
    }

    struct PullStop: Error { var outcome: PullOutcome }

    func open(
        _ page: PulledPage, _ found: ReadOutcome<BorrowedPage>, _ work: PullWork
    ) throws(PullStop) -> OpenPage {
        let context = work.context
        guard case .hit(let block) = found else {
            if case .corrupt = found { throw corrupt(page, "in the store") }
            throw PullStop(outcome: .miss)
        }
        let opened = OpenPage(block, context.codec)
        do throws(CodecError) {
            // The header has a checksum of its own. What is only copied is checked meanwhile; any other page before its
            // symbols are looked at.
            let header = try opened.decoder.check(block.bytes, isVerified: true)
            guard (work.asStored || header.mode == .raw) && work.copiesOnce || store.confirm(block) else {
                throw CodecError.corrupt("block checksum")
            }
            if !work.asStored { try opened.decoder.open(block.bytes, isVerified: true) }
        } catch {
            // No page of this namespace is of another model: only keys made for it meet.
            if case .mismatch = error { throw PullStop(outcome: .miss) }
            // Bytes that went bad in RAM are taken out of the store, which may have them on disk as well.
            let isIntact = block.isConfirmed || store.confirm(block)
            guard !isIntact, store.residence(page.key) == .disk else {
                if isIntact, case .corrupt = error { letGo(page.key, block) }
                throw corrupt(page, "\(error)")
            }
            return try open(page, store.borrow(Int(page.index), of: work.use), work)
        }
        guard let header = opened.decoder.header, header.element == context.layout.element else {
            throw PullStop(outcome: .miss)
        }
        // A session whose window has come over a coded page was told so; what it asks of every page it gets or nothing.
        guard work.promise.isKept(by: CodedPage(header), first: header.firstPosition, window: false) else {
            throw PullStop(outcome: .miss)
        }
        let need = byteCount(of: opened, work.layers, work)
        guard UInt64(need) <= page.entry.capacity, work.arena != nil || need <= Wire.maximumBody - 64 else {
            throw PullStop(outcome: .noSpace)
        }
        return opened
    }

    private func corrupt(_ page: PulledPage, _ what: String) -> PullStop {
        log.error("page corrupt", metadata: ["key": "\(page.key)", "error": "\(what)"])
        return PullStop(outcome: .corrupt)
    }
}

/// Why a pull ended early.
enum PullFailure<E: Error>: Error {
    /// The request was refused.
    case refused(WireError)
    /// A part could not be delivered.
    case notDelivered(E)
}
