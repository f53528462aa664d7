import DequeModule
import KVTCCodec
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem
import Synchronization

/// A page that is found and decoded as far as it can be before its place is known, until no thread writes parts of it any
/// more.
final class OpenPage: Sendable {
    let decoder: PageDecoder
    let block: BorrowedPage
    private let codec: PageCodec
    private let isShared: Bool

    /// - Parameter isShared: it came from other machines.
    init(_ block: BorrowedPage, isShared: Bool = false, _ codec: PageCodec) {
        (self.block, self.isShared, self.codec) = (block, isShared, codec)
        decoder = codec.takeDecoder()
    }

    deinit { codec.giveBack(decoder) }

    var tokens: Int { decoder.header?.tokens ?? 0 }
    var source: PageSource {
        if isShared { return .shared }
        return block.isConfirmed ? .disk : decoder.header?.mode == .raw ? .raw : .coded
    }
    var byteCount: Int { decoder.byteCount + block.bytes.count }
}

/// The bytes of a part that travel with it.
enum InlineBytes: Sendable {
    /// None: they are in the arena, or the page is not there.
    case none
    case decoded([UInt8])
    /// A stretch of the stored block, which goes to the socket from where it lies.
    case stored(BorrowedPage, Range<Int>)

    func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        switch self {
        case .none: return try body(UnsafeRawBufferPointer(start: nil, count: 0))
        case .stored(let page, let range): return try body(UnsafeRawBufferPointer(rebasing: page.bytes[range]))
        case .decoded(let bytes):
            // withUnsafeBytes forwards typed errors only through a result.
            return try bytes.withUnsafeBytes { bytes in Result { () throws(E) in try body(bytes) } }.get()
        }
    }
}

/// A part that can be sent.
struct ReadyPart: Sendable {
    var part: PullPart
    var bytes = InlineBytes.none
}

/// One page on its way back: read and opened once, written in as many steps as the client wants.
final class PulledPage: Sendable {
    enum State: Sendable {
        case untouched
        /// On its way from other machines; with the later steps that wait for it.
        case awaited(steps: [Int])
        /// Read ahead from the disk, or brought from other machines.
        case found(ReadOutcome<BorrowedPage>, isShared: Bool)
        case open(OpenPage)
        case failed
    }

    let key: StoreKey
    let entry: PullEntry
    let index: UInt32
    /// Held while the page is read and opened, so that the steps of one page do so once.
    let state = RankedMutex(State.untouched, rank: .pulledPage)

    init(key: StoreKey, entry: PullEntry, index: UInt32) {
        self.key = key
        self.entry = entry
        self.index = index
    }

    /// Whether a later step has to wait for the page, which then has it when it arrives.
    func wait(for step: Int) -> Bool {
        state.withLock { state in
            guard case .awaited(let steps) = state else { return false }
            state = .awaited(steps: steps + [step])
            return true
        }
    }

    /// Notes what other machines gave; the steps that have waited for it.
    func arrive(_ found: ReadOutcome<BorrowedPage>) -> [Int] {
        state.withLock { state in
            defer { state = .found(found, isShared: true) }
            if case .awaited(let steps) = state { return steps }
            return []
        }
    }
}

/// Puts the parts of each page in the order of layers: steps of one page are decoded side by side and may be done in any
/// order, but a client may rely on appending what it gets.
struct PartOrder {
    private var nextLayer: [Int]
    private var waiting: [UInt32: [ReadyPart]] = [:]
    /// Parts that wait for an earlier one of their page.
    private(set) var held = 0

    init(pages: Int, first: Int) { nextLayer = [Int](repeating: first, count: pages) }

    /// The parts that may go now that this one is there. After a failure, which goes at once, its page has no more.
    mutating func arrange(_ ready: ReadyPart) -> [ReadyPart] {
        let part = ready.part
        let page = Int(part.entry)
        guard nextLayer[page] != .max else { return [] }
        guard part.outcome == .hit else {
            held -= waiting.removeValue(forKey: part.entry)?.count ?? 0
            nextLayer[page] = .max
            return [ready]
        }
        guard Int(part.layerBegin) == nextLayer[page] else {
            waiting[part.entry, default: []].append(ready)
            held += 1
            return []
        }
        var row = [ready]
        nextLayer[page] = Int(part.layerEnd)
        while let index = waiting[part.entry]?.firstIndex(where: { Int($0.part.layerBegin) == nextLayer[page] }),
            let next = waiting[part.entry]?.remove(at: index)
        {
            held -= 1
            nextLayer[page] = Int(next.part.layerEnd)
            row.append(next)
        }
        return row
    }
}

/// What one pull still has to do, and the parts that are ready. The pool's threads fill it, the one that writes to the
/// client empties it and hands out the next jobs: what is decoded ahead is bounded, however slowly the client reads.
final class PullWork: Sendable {
    /// One step of one page.
    struct Job: Sendable {
        let page: PulledPage
        let step: Int
    }

    struct State: Sendable {
        /// Jobs whose pages can be opened without waiting.
        var found: Deque<Job> = []
        var parts: [ReadyPart] = []
        /// Jobs given to the pool and not done.
        var running = 0
        /// Bytes of opened pages kept for later steps.
        var kept = 0
        /// What it took so far.
        var effort = PullEffort()
        /// Since when the next page from other machines is waited for.
        var sharedSince: UInt64 = 0
    }

    /// Opened pages kept between the steps of one pull; beyond that each step opens its page again.
    static let keptLimit = 256 << 20

    let use: PageUse
    let pages: [PulledPage]
    let steps: [Range<Int>]
    let layers: Range<Int>
    let context: CodingContext
    let promise: Promise
    let arena: Arena?
    /// Whether blocks are wanted, not what is in them.
    let asStored: Bool
    let state = Monitor(State())
    var jobs: Int { pages.count * steps.count }
    /// Whether there is more than the caches of most processors keep until the client looks at it.
    let isLarge: Bool
    /// Whether each page is written in one go to where it cannot be taken for good before the reply says so.
    var copiesOnce: Bool { arena != nil && steps.count == 1 }

    init(
        use: PageUse, pages: [PulledPage], steps: [Range<Int>], layers: Range<Int>, session: Session,
        arena: Arena?, asStored: Bool
    ) {
        self.use = use
        self.pages = pages
        self.steps = steps
        self.layers = layers
        context = session.context
        promise = session.promise
        self.arena = arena
        self.asStored = asStored
        isLarge = pages.reduce(0) { $0 &+ $1.entry.capacity } > 16 << 20
    }

    /// What a thread takes next: two pages while all threads have enough to do, as two cost less than twice one.
    func takeJobs(threads: Int) -> [Job] {
        state.withLock { state in
            guard let first = state.found.popFirst() else { return [] }
            guard state.found.count >= threads, let second = state.found.first, second.step == first.step else {
                return [first]
            }
            state.found.removeFirst()
            return [first, second]
        }
    }
}
