/// How large a store is and where it keeps its pages.
public struct StoreConfiguration: Sendable {
    /// The directory of the disk tier, made if missing; nil: RAM only.
    public var directory: String?
    /// Bytes of RAM for pages. The arenas together never exceed it.
    public var ramBudget: Int
    /// Bytes of disk for the segment files. They together never exceed it.
    public var diskBudget: Int
    /// Bytes of one segment file. Raised for budgets above 512 segments (open files), lowered to a quarter of the budget.
    public var segmentBytes: Int
    /// Bytes of one RAM arena. A page is never larger than an arena.
    public var arenaBytes: Int
    /// Bytes of RAM that the pages of one tenant may take; 0 for no limit of its own.
    public var ramPerTenant: Int
    /// Bytes of disk that the pages of one tenant may take; 0 for no limit of its own.
    public var diskPerTenant: Int
    /// The clocks.
    public var clock: StoreClock
    /// Where arenas outlive the process; nil: nowhere.
    public var keeper: ArenaKeeper?
    /// Called after every store to a RAM directory.
    package var ramStep: (@Sendable () -> Void)?
    /// Pages that the index keeps expanded although they might be compact: some 260 KB.
    package var expandedPages = 1000
    /// The device the disk tier works on.
    package var device: any StorageDevice = LinuxStorageDevice()
    /// Draws the salt of a new segment.
    package var salt: @Sendable () -> UInt64 = { UInt64.random(in: 0 ... .max) }

    /// Bytes that an arena takes, which is a file of memory.
    public var arenaSize: Int { RAMTier.arenaBytes(self) }

    /// Bytes that a segment file takes at most; 0 without a disk.
    public var segmentSize: Int { directory == nil ? 0 : DiskLog.segmentBytes(self) }

    /// A configuration; the defaults are for one machine with a modest disk.
    public init(
        directory: String? = nil, ramBudget: Int, diskBudget: Int = 0, segmentBytes: Int = 64 << 20,
        arenaBytes: Int = 256 << 20, ramPerTenant: Int = 0, diskPerTenant: Int = 0, clock: StoreClock = .system
    ) {
        self.directory = directory
        self.ramBudget = ramBudget
        self.diskBudget = diskBudget
        self.segmentBytes = segmentBytes
        self.arenaBytes = arenaBytes
        self.ramPerTenant = ramPerTenant
        self.diskPerTenant = diskPerTenant
        self.clock = clock
    }
}
