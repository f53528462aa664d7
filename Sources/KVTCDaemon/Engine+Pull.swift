import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem
import Synchronization

/// One page on its way back: read and checked once, decoded in as many steps as the client wants.
private final class PulledPage: Sendable {
    enum State: Sendable {
        case untouched
        case loaded([UInt8], tokens: Int)
        case failed
    }

    let key: StoreKey
    let entry: PullEntry
    let index: UInt32
    /// Held while the page is read, so that the steps of one page read it once.
    let state = Mutex(State.untouched)

    init(key: StoreKey, entry: PullEntry, index: UInt32) {
        self.key = key
        self.entry = entry
        self.index = index
    }
}

/// Where a pull's parts go: handed from the pool's threads to the one that writes to the client.
private struct PullQueue {
    var parts: [PullPart] = []
    var jobsLeft: Int
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
            try check(request, session, arena, caller)
        } catch { throw .refused(error) }
        let layers = session.context.codec.geometry.layers
        let begin = Int(request.layerBegin)
        let end = request.layerEnd == 0 ? layers : Int(request.layerEnd)
        let step = request.layerStep == 0 ? end - begin : Int(request.layerStep)
        let pages = request.entries.enumerated().map { index, entry in
            PulledPage(key: storeKey(session, entry.key), entry: entry, index: UInt32(index))
        }
        let steps = stride(from: begin, to: end, by: step).map { $0..<min($0 + step, end) }
        let queue = Monitor(PullQueue(jobsLeft: pages.count * steps.count))
        // Layer by layer over all pages: what the worker computes first is what it gets first.
        for range in steps {
            for page in pages {
                pool.submit(.urgent) { [self] in
                    let part = decode(page, range, of: begin..<end, session.context, arena)
                    queue.update {
                        if let part { $0.parts.append(part) }
                        $0.jobsLeft -= 1
                    }
                }
            }
        }
        let reply: PullReply
        do throws(E) { reply = try forward(queue, entries: pages.count, emit) } catch { throw .notDelivered(error) }
        metrics.record(.pull, since: start)
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

    private func forward<E: Error>(
        _ queue: Monitor<PullQueue>, entries: Int, _ emit: (PullPart) throws(E) -> Void
    ) throws(E) -> PullReply {
        var worst = [PullOutcome](repeating: .hit, count: entries)
        while true {
            let next = queue.wait { queue -> (parts: [PullPart], isDone: Bool)? in
                guard !queue.parts.isEmpty || queue.jobsLeft == 0 else { return nil }
                defer { queue.parts = [] }
                return (queue.parts, queue.jobsLeft == 0)
            }
            guard let next else { break }
            for part in next.parts {
                if part.outcome != .hit { worst[Int(part.entry)] = part.outcome }
                try emit(part)
            }
            if next.isDone { break }
        }
        func count(_ outcome: PullOutcome) -> UInt32 { UInt32(worst.count { $0 == outcome }) }
        let reply = PullReply(
            hits: count(.hit), misses: count(.miss), corrupt: count(.corrupt),
            other: count(.noSpace) + count(.busy))
        metrics.count {
            $0.hits += UInt64(reply.hits)
            $0.misses += UInt64(reply.misses)
            $0.corrupt += UInt64(reply.corrupt)
        }
        return reply
    }

    // MARK: - On the pool's threads

    private func decode(
        _ page: PulledPage, _ range: Range<Int>, of all: Range<Int>, _ context: CodingContext, _ arena: Arena?
    ) -> PullPart? {
        func failure(_ outcome: PullOutcome) -> PullPart {
            PullPart(
                entry: page.index, layerBegin: UInt16(all.lowerBound), layerEnd: UInt16(all.upperBound),
                outcome: outcome, offset: arena == nil ? 0 : page.entry.offset, length: 0)
        }
        // One failure is told once, whatever the number of steps.
        let loaded: Result<([UInt8], Int)?, PullStop> = page.state.withLock { state in
            switch state {
            case .failed: return .success(nil)
            case .loaded(let block, let tokens): return .success((block, tokens))
            case .untouched:
                switch load(page, all, context, isInline: arena == nil) {
                case .success(let (block, tokens)):
                    state = .loaded(block, tokens: tokens)
                    return .success((block, tokens))
                case .failure(let stop):
                    state = .failed
                    return .failure(stop)
                }
            }
        }
        let block: [UInt8]
        let tokens: Int
        switch loaded {
        case .success(nil): return nil
        case .success(let found?): (block, tokens) = found
        case .failure(let stop): return failure(stop.outcome)
        }
        let start = MonotonicClock.nanoseconds
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
                try decodeInPlace(block, range, context, arena, part)
            } else {
                part.inline = try decodeInline(block, range, context, length)[...]
            }
        } catch {
            log.error("page not decodable", metadata: ["key": "\(page.key)", "error": "\(error)"])
            page.state.withLock { $0 = .failed }
            return failure(.corrupt)
        }
        metrics.record(.decode, since: start)
        metrics.count { $0.bytesReturned += UInt64(length) }
        return part
    }

    private struct PullStop: Error { var outcome: PullOutcome }

    private func load(
        _ page: PulledPage, _ layers: Range<Int>, _ context: CodingContext, isInline: Bool
    ) -> Result<([UInt8], Int), PullStop> {
        switch store.read(page.key, { [UInt8]($0) }) {
        case .miss: return .failure(PullStop(outcome: .miss))
        case .corrupt:
            log.error("page corrupt", metadata: ["key": "\(page.key)"])
            return .failure(PullStop(outcome: .corrupt))
        case .hit(let block):
            guard let header = block.withUnsafeBytes({ try? BlockHeader.parse($0) }) else {
                log.error("block corrupt", metadata: ["key": "\(page.key)"])
                return .failure(PullStop(outcome: .corrupt))
            }
            // A page of other shapes or another profile under this key is not the page that was asked for.
            guard header.geometryHash == context.codec.geometry.hash, header.element == context.layout.element,
                header.profile == nil || header.profile == context.codec.profile?.id
            else {
                log.warning("page of another model", metadata: ["key": "\(page.key)"])
                return .failure(PullStop(outcome: .miss))
            }
            let need = context.layout.pageBytes(
                geometry: context.codec.geometry, tokens: header.tokens, layers: layers)
            guard UInt64(need) <= page.entry.capacity, !isInline || need <= Wire.maximumBody - 64 else {
                return .failure(PullStop(outcome: .noSpace))
            }
            return .success((block, header.tokens))
        }
    }

    private func decodeInPlace(
        _ block: [UInt8], _ range: Range<Int>, _ context: CodingContext, _ arena: Arena, _ part: PullPart
    ) throws(CodecError) {
        let result = block.withUnsafeBytes { bytes in
            Result { () throws(CodecError) -> Void? in
                try arena.withWritable(offset: part.offset, length: part.length) { (output) throws(CodecError) in
                    try context.codec.decode(block: bytes, layers: range, layout: context.layout, into: output)
                }
            }
        }
        guard try result.get() != nil else { throw .invalid(field: "offset", "outside the arena") }
    }

    private func decodeInline(
        _ block: [UInt8], _ range: Range<Int>, _ context: CodingContext, _ length: Int
    ) throws(CodecError) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: length)
        let result = block.withUnsafeBytes { bytes in
            output.withUnsafeMutableBytes { buffer in
                Result { () throws(CodecError) in
                    try context.codec.decode(block: bytes, layers: range, layout: context.layout, into: buffer)
                }
            }
        }
        try result.get()
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
