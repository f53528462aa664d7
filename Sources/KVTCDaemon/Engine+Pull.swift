import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem
import Synchronization

/// A block that is checked and entropy-decoded, until nobody writes parts of it any more.
private final class OpenPage: Sendable {
    let decoder: PageDecoder
    let tokens: Int
    private let codec: PageCodec

    init(_ decoder: PageDecoder, tokens: Int, codec: PageCodec) {
        (self.decoder, self.tokens, self.codec) = (decoder, tokens, codec)
    }

    deinit { codec.giveBack(decoder) }
}

/// One page on its way back: read and opened once, written in as many steps as the client wants.
private final class PulledPage: Sendable {
    enum State: Sendable {
        case untouched
        case open(OpenPage)
        case failed
    }

    let key: StoreKey
    let entry: PullEntry
    let index: UInt32
    /// Held while the page is opened, so that the steps of one page open it once.
    let state = Mutex(State.untouched)

    init(key: StoreKey, entry: PullEntry, index: UInt32) {
        self.key = key
        self.entry = entry
        self.index = index
    }
}

/// Puts the parts of each page in the order of layers: steps of one page are decoded side by side and may be done in any
/// order, but a client may rely on appending what it gets.
private struct PartOrder {
    private var nextLayer: [Int]
    private var waiting: [UInt32: [PullPart]] = [:]
    /// Parts that wait for an earlier one of their page.
    private(set) var held = 0

    init(pages: Int, first: Int) { nextLayer = [Int](repeating: first, count: pages) }

    /// The parts that may go now that this one is there. After a failure, which goes at once, its page has no more.
    mutating func arrange(_ part: PullPart) -> [PullPart] {
        let page = Int(part.entry)
        guard nextLayer[page] != .max else { return [] }
        guard part.outcome == .hit else {
            held -= waiting.removeValue(forKey: part.entry)?.count ?? 0
            nextLayer[page] = .max
            return [part]
        }
        guard Int(part.layerBegin) == nextLayer[page] else {
            waiting[part.entry, default: []].append(part)
            held += 1
            return []
        }
        var ready = [part]
        nextLayer[page] = Int(part.layerEnd)
        while let index = waiting[part.entry]?.firstIndex(where: { Int($0.layerBegin) == nextLayer[page] }),
            let next = waiting[part.entry]?.remove(at: index)
        {
            held -= 1
            nextLayer[page] = Int(next.layerEnd)
            ready.append(next)
        }
        return ready
    }
}

/// What one pull still has to do, and the parts that are ready. The pool's threads fill it, the one that writes to the
/// client empties it and hands out the next jobs: what is decoded ahead is bounded, however slowly the client reads.
private final class PullWork: Sendable {
    struct State: Sendable {
        var parts: [PullPart] = []
        /// Jobs given to the pool and not done.
        var running = 0
        /// Bytes of opened pages kept for later steps.
        var kept = 0
    }

    /// Opened pages kept between the steps of one pull; beyond that each step opens its page again.
    static let keptLimit = 256 << 20

    let pages: [PulledPage]
    let steps: [Range<Int>]
    let layers: Range<Int>
    let context: CodingContext
    let arena: Arena?
    let state = Monitor(State())
    var jobs: Int { pages.count * steps.count }

    init(pages: [PulledPage], steps: [Range<Int>], layers: Range<Int>, context: CodingContext, arena: Arena?) {
        self.pages = pages
        self.steps = steps
        self.layers = layers
        self.context = context
        self.arena = arena
    }
}

extension Engine {
    /// Gets pages back. `emit` is called on the caller's thread with each part as it is ready; when it throws, the rest
    /// is dropped.
    func pull<E: Error>(
        _ request: PullRequest, arena: Arena?, _ caller: Caller, emit: (PullPart) throws(E) -> Void
    ) throws(PullFailure<E>) -> PullReply {
        let start = MonotonicClock.nanoseconds
        let session: Session
        do throws(WireError) {
            session = try self.session(request.session, caller)
            try checkCount(request.entries.count, "entries")
            try check(request, session, arena, caller)
        } catch { throw .refused(error) }
        let layers = session.context.codec.geometry.layers
        let begin = Int(request.layerBegin)
        let end = request.layerEnd == 0 ? layers : Int(request.layerEnd)
        let step = request.layerStep == 0 ? end - begin : Int(request.layerStep)
        let pages = request.entries.enumerated().map { index, entry in
            PulledPage(key: storeKey(session, entry.key), entry: entry, index: UInt32(index))
        }
        let work = PullWork(
            pages: pages, steps: stride(from: begin, to: end, by: step).map { $0..<min($0 + step, end) },
            layers: begin..<end, context: session.context, arena: arena)
        let reply: PullReply
        do throws(E) { reply = try deliver(work, emit) } catch { throw .notDelivered(error) }
        metrics.record(.pull, session.tenant, since: start)
        metrics.count(session.tenant) {
            $0.hits += UInt64(reply.hits)
            $0.misses += UInt64(reply.misses)
            $0.corrupt += UInt64(reply.corrupt)
        }
        return reply
    }

    private func check(
        _ request: PullRequest, _ session: Session, _ arena: Arena?, _ caller: Caller
    ) throws(WireError) {
        let layers = session.context.codec.geometry.layers
        let end = request.layerEnd == 0 ? layers : Int(request.layerEnd)
        guard end <= layers, Int(request.layerBegin) < end else {
            throw WireError(
                .invalidField, field: "layerEnd",
                "layers \(request.layerBegin)..<\(end) are not among the model's \(layers)")
        }
        if request.lease != 0 { try checkLease(request.lease, caller) }
        guard let arena else { return }
        for (index, entry) in request.entries.enumerated()
        where !arena.contains(offset: entry.offset, length: entry.capacity) {
            throw WireError(
                .arenaBounds, field: "entries[\(index)].offset",
                "\(entry.offset) + \(entry.capacity) lies beyond \(arena.byteCount) bytes")
        }
    }

    private func deliver<E: Error>(_ work: PullWork, _ emit: (PullPart) throws(E) -> Void) throws(E) -> PullReply {
        var worst = [PullOutcome](repeating: .hit, count: work.pages.count)
        var order = PartOrder(pages: work.pages.count, first: work.layers.lowerBound)
        let ahead = max(8, 4 * configuration.workers)
        var submitted = 0
        while true {
            let room = work.state.withLock { ahead - $0.running - $0.parts.count } - order.held
            for _ in 0..<max(0, min(room, work.jobs - submitted)) {
                submit(work, submitted)
                submitted += 1
            }
            let isSubmitted = submitted == work.jobs
            let next = work.state.wait { state -> (parts: [PullPart], isOver: Bool)? in
                let isOver = isSubmitted && state.running == 0
                guard !state.parts.isEmpty || isOver || (!isSubmitted && state.running == 0) else { return nil }
                defer { state.parts = [] }
                return (state.parts, isOver)
            }
            guard let next else { break }
            for part in next.parts.flatMap({ order.arrange($0) }) {
                if part.outcome != .hit { worst[Int(part.entry)] = part.outcome }
                try emit(part)
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
        pool.submit(.urgent) { [self] in
            let part = decode(page, step, work)
            work.state.update {
                if let part { $0.parts.append(part) }
                $0.running -= 1
            }
        }
    }

    // MARK: - On the pool's threads

    private func decode(_ page: PulledPage, _ step: Int, _ work: PullWork) -> PullPart? {
        let (all, range, context, arena) = (work.layers, work.steps[step], work.context, work.arena)
        func failure(_ outcome: PullOutcome) -> PullPart {
            PullPart(
                entry: page.index, layerBegin: UInt16(all.lowerBound), layerEnd: UInt16(all.upperBound),
                outcome: outcome, offset: arena == nil ? 0 : page.entry.offset, length: 0)
        }
        // One failure is told once, whatever the number of steps.
        let start = MonotonicClock.nanoseconds
        let opened: Result<OpenPage?, PullStop> = page.state.withLock { state in
            switch state {
            case .failed: return .success(nil)
            case .open(let page): return .success(page)
            case .untouched:
                switch open(page, all, context, isInline: arena == nil) {
                case .success(let opened):
                    if step + 1 < work.steps.count, keep(opened.decoder.byteCount, work) { state = .open(opened) }
                    return .success(opened)
                case .failure(let stop):
                    state = .failed
                    return .failure(stop)
                }
            }
        }
        let source: OpenPage
        switch opened {
        case .success(nil): return nil
        case .success(let found?): source = found
        case .failure(let stop): return failure(stop.outcome)
        }
        let tokens = source.tokens
        let geometry = context.codec.geometry
        let before = context.layout.pageBytes(
            geometry: geometry, tokens: tokens, layers: all.lowerBound..<range.lowerBound)
        let length = context.layout.pageBytes(geometry: geometry, tokens: tokens, layers: range)
        var part = PullPart(
            entry: page.index, layerBegin: UInt16(range.lowerBound), layerEnd: UInt16(range.upperBound), outcome: .hit,
            offset: UInt64(before), length: UInt64(length))
        do throws(CodecError) {
            if let arena {
                part.offset += page.entry.offset
                try writeInPlace(source.decoder, range, context, arena, part)
            } else {
                part.inline = try writeInline(source.decoder, range, context, length)[...]
            }
        } catch {
            log.error("page not decodable", metadata: ["key": "\(page.key)", "error": "\(error)"])
            page.state.withLock { $0 = .failed }
            return failure(.corrupt)
        }
        metrics.record(.decode, page.key.tenant, since: start)
        metrics.count(page.key.tenant) { $0.bytesReturned += UInt64(length) }
        return part
    }

    private func keep(_ bytes: Int, _ work: PullWork) -> Bool {
        work.state.withLock { state in
            guard state.kept + bytes <= PullWork.keptLimit else { return false }
            state.kept += bytes
            return true
        }
    }

    private struct PullStop: Error { var outcome: PullOutcome }

    private func open(
        _ page: PulledPage, _ layers: Range<Int>, _ context: CodingContext, isInline: Bool
    ) -> Result<OpenPage, PullStop> {
        let decoder = context.codec.takeDecoder()
        let outcome = store.read(page.key) { block in
            Result { () throws(CodecError) in
                try decoder.open(block)
                decoder.detach()
            }
        }
        // From here on the decoder is given back when it is let go.
        let opened = OpenPage(decoder, tokens: decoder.header?.tokens ?? 0, codec: context.codec)
        switch outcome {
        case .miss: return .failure(PullStop(outcome: .miss))
        case .corrupt:
            log.error("page corrupt", metadata: ["key": "\(page.key)"])
            return .failure(PullStop(outcome: .corrupt))
        case .hit(.failure(.mismatch)):
            // A page of other shapes or another profile under this key is not the page that was asked for.
            log.warning("page of another model", metadata: ["key": "\(page.key)"])
            return .failure(PullStop(outcome: .miss))
        case .hit(.failure(let error)):
            log.error("block corrupt", metadata: ["key": "\(page.key)", "error": "\(error)"])
            return .failure(PullStop(outcome: .corrupt))
        case .hit(.success):
            guard decoder.header?.element == context.layout.element else {
                log.warning("page of another model", metadata: ["key": "\(page.key)"])
                return .failure(PullStop(outcome: .miss))
            }
            let need = context.layout.pageBytes(
                geometry: context.codec.geometry, tokens: opened.tokens, layers: layers)
            guard UInt64(need) <= page.entry.capacity, !isInline || need <= Wire.maximumBody - 64 else {
                return .failure(PullStop(outcome: .noSpace))
            }
            return .success(opened)
        }
    }

    private func writeInPlace(
        _ decoder: PageDecoder, _ range: Range<Int>, _ context: CodingContext, _ arena: Arena, _ part: PullPart
    ) throws(CodecError) {
        let done: Void? = try arena.withWritable(offset: part.offset, length: part.length) {
            (output) throws(CodecError) in
            try decoder.write(layers: range, layout: context.layout, into: output)
        }
        guard done != nil else { throw .invalid(field: "offset", "outside the arena") }
    }

    private func writeInline(
        _ decoder: PageDecoder, _ range: Range<Int>, _ context: CodingContext, _ length: Int
    ) throws(CodecError) -> [UInt8] {
        var failure: CodecError?
        let output = [UInt8](unsafeUninitializedCapacity: length) { buffer, filled in
            do throws(CodecError) {
                try decoder.write(
                    layers: range, layout: context.layout,
                    into: UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: length))
                filled = length
            } catch { failure = error }
        }
        if let failure { throw failure }
        return output
    }
}

/// Why a pull ended early.
enum PullFailure<E: Error>: Error {
    /// The request was refused.
    case refused(WireError)
    /// A part could not be delivered.
    case notDelivered(E)
}
