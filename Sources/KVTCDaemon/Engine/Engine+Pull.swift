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
            let next = submitted + max(0, min(room, work.jobs - submitted))
            submit(work, submitted..<next)
            submitted = next
            let isSubmitted = submitted == work.jobs
            let ready = work.state.wait { state -> (parts: [ReadyPart], isOver: Bool)? in
                let isOver = isSubmitted && state.running == 0
                guard !state.parts.isEmpty || isOver || (!isSubmitted && state.running == 0) else { return nil }
                defer { state.parts = [] }
                return (state.parts, isOver)
            }
            guard let ready else { break }
            for part in ready.parts.flatMap({ order.arrange($0) }) {
                if part.part.outcome != .hit { worst[Int(part.part.entry)] = part.part.outcome }
                try emit(part)
            }
            if ready.isOver { break }
        }
        func count(_ outcome: PullOutcome) -> UInt32 { UInt32(worst.count { $0 == outcome }) }
        return PullReply(
            hits: count(.hit), misses: count(.miss), corrupt: count(.corrupt),
            other: count(.noSpace) + count(.busy))
    }

    // Layer by layer over all pages: what the worker computes first is what it gets first.
    private func submit(_ work: PullWork, _ jobs: Range<Int>) {
        work.state.withLock { $0.running += jobs.count }
        var elsewhere: [PullWork.Job] = []
        for job in jobs {
            let job = PullWork.Job(page: work.pages[job % work.pages.count], step: job / work.pages.count)
            switch job.step == 0 ? store.residence(job.page.key) : .ram {
            case .absent where shared != nil:
                job.page.state.withLock { $0 = .awaited(steps: []) }
                elsewhere.append(job)
            case .ram where job.step > 0 && shared != nil && job.page.wait(for: job.step): break
            // One page is done sooner here than by waking another thread and being woken by it.
            case _ where work.jobs == 1: finish([job], work)
            case .disk: readFromDisk(job, work)
            case .absent, .ram: open(job, work)
            }
        }
        if !elsewhere.isEmpty { fetch(elsewhere, work) }
    }

    private func open(_ job: PullWork.Job, _ work: PullWork) {
        work.state.withLock { $0.found.append(job) }
        pool.submit(.urgent) { [self] in finish(work.takeJobs(threads: pool.width), work) }
    }

    // Threads that compute do not wait for the disk, and the disk gets several requests at a time.
    private func readFromDisk(_ job: PullWork.Job, _ work: PullWork) {
        readers.submit(.urgent) { [self] in
            let start = MonotonicClock.nanoseconds
            job.page.state.withLock { state in
                state = .found(store.borrow(Int(job.page.index), of: work.use), isShared: false)
            }
            let elapsed = MonotonicClock.nanoseconds - start
            work.state.withLock { $0.effort.add(.disk, tokens: 0, nanoseconds: elapsed) }
            open(job, work)
        }
    }

    /// All of them in one go, and each as soon as it is there.
    private func fetch(_ jobs: [PullWork.Job], _ work: PullWork) {
        work.state.withLock { $0.sharedSince = MonotonicClock.nanoseconds }
        shared?.fetch(jobs.map(\.page.key)) { [self] index, outcome in
            let job = jobs[index]
            let found: ReadOutcome<BorrowedPage> =
                if case .hit(let page, let bytes) = outcome {
                    .hit(store.admit(Int(job.page.index), of: work.use, page, bytes))
                } else {
                    .miss
                }
            let steps = job.page.arrive(found)
            work.state.withLock { state in
                let now = MonotonicClock.nanoseconds
                // They come one after another: what each waited for alone.
                state.effort.add(.shared, tokens: 0, nanoseconds: now - state.sharedSince)
                state.sharedSince = now
            }
            for step in [job.step] + steps { open(PullWork.Job(page: job.page, step: step), work) }
        }
    }

    private func finish(_ jobs: [PullWork.Job], _ work: PullWork) {
        guard !jobs.isEmpty else { return }
        let parts = decode(jobs, work)
        work.state.update {
            $0.parts += parts
            $0.running -= jobs.count
        }
    }
}

/// Why a pull ended early.
enum PullFailure<E: Error>: Error {
    /// The request was refused.
    case refused(WireError)
    /// A part could not be delivered.
    case notDelivered(E)
}
