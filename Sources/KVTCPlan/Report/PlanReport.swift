/// What a plan says. Sizes are bytes, times seconds.
public struct PlanReport: Sendable {
    /// What of the prompts has to be computed, and what does not.
    public struct Outcome: Hashable, Sendable {
        /// Blocks of all prompts.
        public var blocks = 0
        /// Those that were found, on the GPU or in kvtcd.
        public var hitBlocks = 0
        /// Their tokens.
        public var hitTokens = 0
        /// All others.
        public var computedTokens = 0
        /// Nil where the rate is not known.
        public var computeSeconds: Double?
        /// What bringing hits back from kvtcd takes, as far as that is known.
        public var restoreSeconds: Double?

        /// Share of the blocks.
        public var hitRatio: Double { blocks > 0 ? Double(hitBlocks) / Double(blocks) : 0 }
        /// Computing and bringing back.
        public var seconds: Double? { computeSeconds.map { $0 + (restoreSeconds ?? 0) } }
    }

    /// One setup.
    public struct Line: Hashable, Sendable {
        /// Which.
        public var setup: Setup
        /// What the store did.
        public var result: ReplayResult
        /// What that means together with the GPU's own cache.
        public var outcome: Outcome
    }

    /// What was replayed.
    public let trace: Trace
    /// Of which model.
    public let shape: PageShape
    /// As in ``Planner/gpuMemory``.
    public let gpuMemory: Int
    /// Without kvtcd.
    public let today: Outcome
    /// With endless memory.
    public let ceiling: Outcome
    /// With kvtcd.
    public internal(set) var setups: [Line] = []
}

extension PlanReport {
    /// The smallest setup of each coding that finds so large a share of what could be found beyond today: least disk first,
    /// then least RAM. Nil where none of those asked for does.
    public func smallest(reaching share: Double) -> [(coding: Coding, setup: Setup?)] {
        let wanted = today.hitRatio + share * (ceiling.hitRatio - today.hitRatio)
        return codings.map { coding in
            let enough = setups.filter { $0.setup.coding == coding && $0.outcome.hitRatio >= wanted }
            return (coding, enough.map(\.setup).min { ($0.disk, $0.ram) < ($1.disk, $1.ram) })
        }
    }

    /// In the order of ratios.
    public var codings: [Coding] { Set(setups.map(\.setup.coding)).sorted { $0.ratio < $1.ratio } }

    /// The tiers for which coding makes the greatest difference: how often the lowest and the highest ratio hit. Nil where there are
    /// not two ratios, or the lowest hits nothing anywhere.
    public var greatestGain: (low: Line, high: Line)? {
        guard let first = codings.first, let last = codings.last, first != last else { return nil }
        let pairs = setups.filter { $0.setup.coding == first && $0.result.hitRatio > 0 }.compactMap { low in
            setups.first { $0.setup == Setup(ram: low.setup.ram, disk: low.setup.disk, coding: last) }.map { (low, $0) }
        }
        // By what is gained, not by how many times: nine times next to nothing is nothing.
        return pairs.max { $0.1.result.hitRatio - $0.0.result.hitRatio < $1.1.result.hitRatio - $1.0.result.hitRatio }
            .map { (low: $0.0, high: $0.1) }
    }
}
