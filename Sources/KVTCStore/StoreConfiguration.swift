import Glibc

/// The store's two clocks, replaceable so that tests can move time.
public struct StoreClock: Sendable {
    /// Wall-clock seconds since 1970; expiry is measured with it because it must survive a restart.
    public var wallSeconds: @Sendable () -> UInt64
    /// Milliseconds of a clock that never jumps; leases are measured with it.
    public var milliseconds: @Sendable () -> UInt64

    /// A clock made of two readings.
    public init(wallSeconds: @escaping @Sendable () -> UInt64, milliseconds: @escaping @Sendable () -> UInt64) {
        self.wallSeconds = wallSeconds
        self.milliseconds = milliseconds
    }

    /// The machine's clocks.
    public static let system = StoreClock(
        wallSeconds: { UInt64(max(0, time(nil))) },
        milliseconds: {
            var now = timespec()
            clock_gettime(CLOCK_MONOTONIC, &now)
            return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
        })
}

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
    /// Pages that the index keeps entries of although they might rest: some 260 KB.
    package var awakePages = 1000
    /// The device the disk tier works on.
    package var device: any StorageDevice = LinuxStorageDevice()
    /// Draws the salt of a new segment.
    package var salt: @Sendable () -> UInt64 = { UInt64.random(in: 0 ... .max) }

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

/// Why the store could not do what was asked.
public enum StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Another process uses the directory.
    case locked(String)
    /// The directory was written by a newer version of this software, with this format number.
    case newerFormat(path: String, found: UInt32, supported: UInt32)
    /// A device call failed.
    case io(DeviceError)
    /// The disk budget has no room left that may be reclaimed.
    case diskFull
    /// The disk budget is too small for all that was to be written; so many pages are not.
    case overBudget(pages: Int)
    /// The store has no disk tier.
    case noDiskTier
    /// A configuration value makes no sense.
    case invalid(String)

    /// The error in words, fit for a log.
    public var description: String {
        switch self {
        case .locked(let path): "\(path) is in use by another process"
        case .newerFormat(let path, let found, let supported):
            "\(path) has store format \(found), this version reads up to \(supported)"
        case .io(let error): error.description
        case .diskFull: "the disk budget is full of pages that may not be dropped"
        case .overBudget(let pages):
            "the disk budget is too small for all of it: \(pages) pages, those least worth keeping, are not on disk; "
                + "raise disk.budget above ram.budget"
        case .noDiskTier: "there is no disk tier"
        case .invalid(let text): text
        }
    }
}
