import KVTCSystem

/// The RAM budget: a few large arenas, made when they are first needed.
final class RAMTier: Sendable {
    let budget: Int
    let arenaBytes: Int
    private let keeper: ArenaKeeper?
    private let clock: StoreClock
    private let timeline: Timeline
    private let step: (@Sendable () -> Void)?
    private let arenas = RankedMutex<[RAMArena]>([], rank: .arenas)
    private let lastRefusal = RankedMutex<String?>(nil, rank: .refusal)

    init(_ configuration: StoreConfiguration, _ timeline: Timeline) {
        self.timeline = timeline
        budget = Self.budget(configuration)
        arenaBytes = Self.arenaBytes(configuration)
        keeper = configuration.keeper
        clock = configuration.clock
        step = configuration.ramStep
    }

    private static func budget(_ configuration: StoreConfiguration) -> Int {
        max(0, configuration.ramBudget) / ExtentAllocator.granularity * ExtentAllocator.granularity
    }

    /// Bytes of an arena; the last one may be smaller.
    static func arenaBytes(_ configuration: StoreConfiguration) -> Int {
        let (unit, budget) = (ExtentAllocator.granularity, budget(configuration))
        // A keeper holds few descriptors (see FileDescriptorStoreMax= in the unit).
        let wanted = min(max(configuration.arenaBytes, budget / 32), RAMHeader.largest)
        return min(max(unit, wanted / unit * unit), budget)
    }

    /// The largest page that can ever fit.
    var maxPageBytes: Int { arenaBytes }
    /// Why the kernel gave no memory for the arena that was last asked for; nil when it did.
    var refusal: String? { lastRefusal.withLock { $0 } }
    /// Bytes handed out.
    var used: Int { arenas.withLock { $0.reduce(0) { $0 + $1.used } } }

    /// Room for `length` bytes without evicting anything; nil when there is none.
    func allocate(_ length: Int) -> RAMExtent? {
        arenas.withLock { arenas in
            for arena in arenas {
                if let extent = arena.allocate(length) { return extent }
            }
            let bytes = min(arenaBytes, budget - arenas.reduce(0) { $0 + $1.bytes })
            guard length <= bytes else { return nil }
            let arena: RAMArena
            do throws(RAMDirectoryError) {
                arena = try RAMArena(bytes: bytes, created: clock.wallSeconds(), mark: timeline.mark, step: step)
                lastRefusal.withLock { $0 = nil }
            } catch {
                lastRefusal.withLock { $0 = "\(error)" }
                return nil
            }
            // Before the first page in it is acknowledged.
            keeper?.keep(arena.name, arena.file)
            arenas.append(arena)
            return arena.allocate(length)
        }
    }

    /// What an earlier process left.
    struct Inheritance {
        var pages: [(RAMRecord, RAMExtent)] = []
        /// Arenas that the budget as it is now has no place for; their pages have to move.
        var surplus: [RAMArena] = []
        /// What they say of the time.
        var marks: [TimeMark] = []
        /// Slots that were neither free nor valid.
        var damaged = 0
        /// Files that are no arenas that can be used.
        var refused = 0
    }

    /// Takes the kept arenas over; what cannot be used is let go.
    func inherit() -> Inheritance {
        var result = Inheritance()
        var total = 0
        for (name, file) in keeper?.kept ?? [] {
            do throws(RAMDirectoryError) {
                let (arena, pages, directory) = try RAMArena.adopt(file, name: name, step: step)
                result.pages += pages
                result.damaged += directory.damaged
                if let mark = directory.mark { result.marks.append(mark) }
                let fits = [arenaBytes, budget % arenaBytes].contains(arena.bytes) && total + arena.bytes <= budget
                if fits {
                    total += arena.bytes
                    arenas.withLock { $0.append(arena) }
                } else {
                    result.surplus.append(arena)
                }
            } catch {
                result.refused += 1
                keeper?.forget(name, error.description)
            }
        }
        return result
    }

    /// Lets an arena go whose pages have moved.
    func letGo(_ arena: RAMArena) { keeper?.forget(arena.name, "the RAM budget has changed; its pages have moved") }
}
