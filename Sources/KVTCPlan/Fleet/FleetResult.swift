/// What became of a fleet's requests. Blocks, bytes and seconds are of the part of the fleet that was simulated.
public struct FleetResult: Sendable {
    /// Times to the first token, in seconds.
    public struct Times: Hashable, Sendable {
        /// Of all requests.
        public var mean = 0.0
        /// Of half of them at most.
        public var median = 0.0
        /// Of 99 % at most.
        public var p99 = 0.0
        /// Share of the time that GPUs compute prompts; above 1 they can't keep up.
        public var busy = 0.0
    }

    /// Requests.
    public var requests = 0
    /// Blocks of their prompts.
    public var blocks = 0
    /// Blocks found at the machine itself.
    public var here = 0
    /// Blocks found beyond these in the shared tier.
    public var there = 0
    /// Those of them that were fetched, since that was faster than computing them.
    public var fetched = 0
    /// Tokens of those found there.
    public var thereTokens = 0
    /// Bytes of the same.
    public var thereBytes = 0.0
    /// Requests that found any.
    public var finds = 0
    /// Seconds that it would have taken to compute them.
    public var thereSeconds = 0.0
    /// Requests that fetched.
    public var fetches = 0
    /// Bytes that they fetched.
    public var fetchedBytes = 0.0
    /// Seconds that this took on the network, summed over them.
    public var fetchSeconds = 0.0
    /// Bytes written to the shared tier.
    public var writtenBytes = 0.0
    /// Bytes that were not, for want of network.
    public var heldBackBytes = 0.0
    /// Bytes in the shared tier at the end.
    public var sharedBytes = 0.0
    /// Raw over stored bytes, with what stays exact.
    public var totalRatio = 1.0
    /// Seconds from the first request to the last.
    public var seconds = 0.0
    /// Of what is simulated: machines, and their share of the fleet.
    public var stores = 0
    /// Machines that are simulated over those that there are.
    public var share = 1.0
    /// With each machine's own tiers only.
    public var alone = Times()
    /// With the shared tier, too.
    public var shared = Times()
    /// Bytes of the whole shared tier, ascending, and the blocks that are found there with so many; empty where it has a budget.
    public var needs: [(bytes: Double, blocks: Int)] = []

    /// Share of all blocks found at the machine itself.
    public var hereRatio: Double { ratio(here) }
    /// Share of all blocks found in the shared tier.
    public var thereRatio: Double { ratio(there) }
    /// Share of all blocks fetched.
    public var fetchedRatio: Double { ratio(fetched) }
    private func ratio(_ blocks: Int) -> Double { Double(blocks) / Double(max(1, self.blocks)) }

    /// Share of what the machines' links carry that fetches take.
    public func readShare(_ fleet: Fleet) -> Double { fetchedBytes / (fleet.link * Double(stores) * seconds) }
    /// The same of writes, which go the other way.
    public func writeShare(_ fleet: Fleet) -> Double { writtenBytes / (fleet.link * Double(stores) * seconds) }

    /// Share of what would be written that was held back.
    public var heldBackShare: Double { heldBackBytes / max(1, heldBackBytes + writtenBytes) }

    /// The least memory of the whole shared tier that finds this share of what an endless one does.
    public func memory(finding share: Double) -> Double? {
        let wanted = share * Double(needs.reduce(0) { $0 + $1.blocks })
        var found = 0.0
        return needs.first { need in
            found += Double(need.blocks)
            return found >= wanted
        }?.bytes
    }
}
