import KVTCCodec
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem

// What the pool's threads do of a pull: pages are opened and written.
extension Engine {
    /// Part of an open page, and what it took so far.
    private struct Source {
        let job: PullWork.Job
        let open: OpenPage
        var ready: ReadyPart
        var nanoseconds: UInt64
        var isWritten = false
    }

    /// Some pages' parts of the same layers.
    func decode(_ jobs: [PullWork.Job], _ work: PullWork) -> [ReadyPart] {
        var (sources, parts): ([Source], [ReadyPart]) = ([], [])
        for job in jobs {
            let start = MonotonicClock.nanoseconds
            switch source(job, work) {
            // One failure is told once, whatever the number of steps.
            case .success(nil): break
            case .success(let open?):
                let ready = part(of: open, job, work)
                sources.append(
                    Source(job: job, open: open, ready: ready, nanoseconds: MonotonicClock.nanoseconds - start))
            case .failure(let stop): parts.append(failure(stop.outcome, job.page, work))
            }
        }
        writeTogether(&sources, work)
        return parts + sources.map { write($0, work) }
    }

    private func failure(_ outcome: PullOutcome, _ page: PulledPage, _ work: PullWork) -> ReadyPart {
        ReadyPart(
            part: PullPart(
                entry: page.index, layerBegin: UInt16(work.layers.lowerBound),
                layerEnd: UInt16(work.layers.upperBound), outcome: outcome,
                offset: work.arena == nil ? 0 : page.entry.offset, length: 0))
    }

    private func source(_ job: PullWork.Job, _ work: PullWork) -> Result<OpenPage?, PullStop> {
        job.page.state.withLock { state in
            let (found, isShared): (ReadOutcome<BorrowedPage>, Bool)
            switch state {
            case .failed: return .success(nil)
            case .open(let page): return .success(page)
            case .found(let outcome, let isFromOthers): (found, isShared) = (outcome, isFromOthers)
            case .untouched, .awaited: (found, isShared) = (store.borrow(Int(job.page.index), of: work.use), false)
            }
            do throws(PullStop) {
                let opened = try open(job.page, found, isShared: isShared, work)
                let isNeeded = job.step + 1 < work.steps.count && keep(opened.byteCount, work)
                state = isNeeded ? .open(opened) : .untouched
                return .success(opened)
            } catch {
                state = .failed
                return .failure(error)
            }
        }
    }

    private func part(of open: OpenPage, _ job: PullWork.Job, _ work: PullWork) -> ReadyPart {
        let range = work.steps[job.step]
        let before = UInt64(byteCount(of: open, work.layers.lowerBound..<range.lowerBound, work))
        return ReadyPart(
            part: PullPart(
                entry: job.page.index, layerBegin: UInt16(range.lowerBound), layerEnd: UInt16(range.upperBound),
                outcome: .hit, offset: work.arena == nil ? before : before + job.page.entry.offset,
                length: UInt64(byteCount(of: open, range, work))))
    }

    /// Coded pages in an arena: the basis comes from memory once for both.
    private func writeTogether(_ sources: inout [Source], _ work: PullWork) {
        let coded = sources.indices.filter { sources[$0].open.source != .raw }
        guard let arena = work.arena, !work.asStored, coded.count == 2 else { return }
        let (first, second) = (sources[coded[0]], sources[coded[1]])
        let start = MonotonicClock.nanoseconds
        let (one, other) = (first.ready.part, second.ready.part)
        // What one of them has against it is found when each is written on its own.
        let isWritten: Bool?? = arena.withWritable(offset: one.offset, length: one.length) { output in
            arena.withWritable(offset: other.offset, length: other.length) { otherOutput in
                let layers = work.steps[first.job.step]
                return
                    (try? first.open.decoder.write(
                        layers: layers, layout: work.context.layout, into: output, and: second.open.decoder,
                        into: otherOutput)) != nil
            }
        }
        let elapsed = (MonotonicClock.nanoseconds - start) / 2
        for index in coded {
            sources[index].isWritten = isWritten == true
            sources[index].nanoseconds += elapsed
        }
    }

    private func write(_ source: Source, _ work: PullWork) -> ReadyPart {
        let start = MonotonicClock.nanoseconds
        let (page, range) = (source.job.page, work.steps[source.job.step])
        var ready = source.ready
        do throws(CodecError) {
            if let arena = work.arena {
                let isRight = try source.isWritten ? true : writeInPlace(source.open, range, work, arena, ready.part)
                if !isRight { try writeFromDisk(page, range, work, arena, ready.part) }
            } else {
                ready.bytes = try inlineBytes(source.open, range, work, Int(ready.part.length))
            }
        } catch {
            log.error("page not decodable", metadata: ["key": "\(page.key)", "error": .stringConvertible(error)])
            page.state.withLock { $0 = .failed }
            return failure(.corrupt, page, work)
        }
        let nanoseconds = source.nanoseconds + MonotonicClock.nanoseconds - start
        if !work.asStored { metrics.record(.decode, page.key.tenant, nanoseconds) }
        work.state.withLock {
            $0.effort.add(
                source.open.source, tokens: source.job.step == 0 ? source.open.tokens : 0, nanoseconds: nanoseconds)
        }
        metrics.count(page.key.tenant) { $0.bytesReturned += ready.part.length }
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
        _ page: PulledPage, _ found: ReadOutcome<BorrowedPage>, isShared: Bool = false, _ work: PullWork
    ) throws(PullStop) -> OpenPage {
        let context = work.context
        guard case .hit(let block) = found else {
            if case .corrupt = found { throw corrupt(page, "in the store") }
            throw PullStop(outcome: .miss)
        }
        let opened = OpenPage(block, isShared: isShared, context.codec)
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
