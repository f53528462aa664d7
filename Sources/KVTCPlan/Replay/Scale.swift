import KVTCStore

/// How a setup's sizes stand for smaller ones: a block as coded for a few of the store's allocation units.
struct Scale {
    /// Bytes that one allocation unit stands for.
    private let unit: Double
    /// Of a block that stays exact as a whole.
    private let largest: Int

    /// Units of a full block, as coded: enough for what a shorter one takes to be right on average.
    private static let resolution = 4

    init(_ setup: Setup, _ shape: PageShape, blockTokens: Int) {
        let bytes = Double(shape.tokenBytes)
        unit = setup.coding.rows(blockTokens, exact: 0) * bytes / Double(Self.resolution)
        largest = Int((Double(blockTokens) * bytes / unit).rounded(.up)) * ExtentAllocator.granularity
    }

    /// The length of a page that stands for one of so many bytes: with its record's header whole units, on disk as in RAM.
    func length(_ bytes: Double) -> Int {
        max(1, Int((bytes / unit).rounded())) * ExtentAllocator.granularity - Store.recordOverhead
    }

    private func scaled(_ bytes: Int) -> Int {
        Int(min(Double(bytes) / unit * Double(ExtentAllocator.granularity), 0x1p60))
    }

    /// A store of that setup, whose disk is in memory and whose time stands still.
    func configuration(_ setup: Setup) -> StoreConfiguration {
        var configuration = StoreConfiguration(
            ramBudget: max(scaled(setup.ram), ExtentAllocator.granularity),
            arenaBytes: max(scaled(256 << 20), 4 * largest),
            clock: StoreClock(wallSeconds: { 0 }, milliseconds: { 0 }))
        guard setup.disk > 0 else { return configuration }
        // What a segment's index says of a page is a share of ours and nothing beside a real one.
        let indexed = 1 + Double(Store.indexedBytes) / Double(Self.resolution * ExtentAllocator.granularity)
        configuration.directory = "/plan"
        configuration.diskBudget = Int(Double(scaled(setup.disk)) * indexed)
        configuration.segmentBytes = max(Int(Double(scaled(64 << 20)) * indexed), 2 * largest)
        configuration.device = ZeroDevice()
        return configuration
    }
}
