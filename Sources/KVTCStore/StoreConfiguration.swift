import Glibc

/// The store's clocks, replaceable so that tests can move time.
public struct StoreClock: Sendable {
    /// Wall-clock seconds since 1970. Setting that clock changes nothing of a store that is open: see ``Store/seconds``.
    public var wallSeconds: @Sendable () -> UInt64
    /// Milliseconds of a clock that never jumps and goes on while the machine sleeps; leases and lifetimes are measured with
    /// it.
    public var milliseconds: @Sendable () -> UInt64
    /// Names the stretch of time for which `milliseconds` counts on, which is one run of the machine; 0: unknown.
    public var boot: UInt64

    /// A clock made of two readings.
    public init(
        wallSeconds: @escaping @Sendable () -> UInt64, milliseconds: @escaping @Sendable () -> UInt64, boot: UInt64 = 0
    ) {
        self.wallSeconds = wallSeconds
        self.milliseconds = milliseconds
        self.boot = boot
    }

    /// The machine's clocks.
    public static let system = StoreClock(
        wallSeconds: { UInt64(max(0, time(nil))) },
        milliseconds: {
            var now = timespec()
            clock_gettime(CLOCK_BOOTTIME, &now)
            return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
        },
        boot: systemBoot)

    /// Of this run of the machine, and of this namespace of clocks: containers may have their own.
    private static let systemBoot: UInt64 = {
        var text = [UInt8](repeating: 0, count: 64)
        let file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return 0 }
        defer { close(file) }
        let count = text.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
        guard count > 0 else { return 0 }
        var space = stat()
        let isKnown = stat("/proc/self/ns/time", &space) == 0
        return text.withUnsafeBytes {
            checksum(UnsafeRawBufferPointer(rebasing: $0[..<count]), seed: isKnown ? UInt64(space.st_ino) : 0)
        }
    }()
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
    /// The same of what one tenant may take of it.
    case quotaFull(tenant: UInt32)
    /// The disk budget is too small for all that was to be written; so many pages are not. What may not be dropped takes so
    /// much of the disk, and the least worth keeping of what is to be written comes on top.
    case overBudget(pages: Int, protected: ProtectedPages)
    /// The store has no disk tier.
    case noDiskTier
    /// A configuration value makes no sense.
    case invalid(String)

    /// Whether there is no room that may be reclaimed.
    var isFull: Bool {
        switch self {
        case .diskFull, .quotaFull: true
        default: false
        }
    }

    /// The error in words, fit for a log.
    public var description: String {
        switch self {
        case .locked(let path): "\(path) is in use by another process"
        case .newerFormat(let path, let found, let supported):
            "\(path) has store format \(found), this version reads up to \(supported)"
        case .io(let error): error.description
        case .diskFull:
            "the disk budget is full of pages that may not be dropped: unpin some (TOUCH, or a policy without pin), "
                + "release leases, or raise disk.budget"
        case .quotaFull(let tenant):
            "the disk quota of tenant \(tenant) is full of pages that may not be dropped: unpin some (TOUCH, or a policy "
                + "without pin), release leases, or raise limits.disk_per_user"
        case .overBudget(let pages, let protected):
            "the disk budget is too small for all of it: "
                + (pages == 1
                    ? "1 page, the one least worth keeping, is not on disk; "
                    : "\(pages) pages, those least worth keeping, are not on disk; ") + protected.remedy
        case .noDiskTier: "there is no disk tier"
        case .invalid(let text): text
        }
    }
}

/// What of a store may not be dropped to make room on disk, because it is pinned, or leased or held at the moment.
public struct ProtectedPages: Hashable, Sendable {
    /// Pages that are pinned, and what their records take on disk.
    public var pinned = 0, pinnedBytes = 0
    /// Other pages that are leased or held, and what theirs take.
    public var leased = 0, leasedBytes = 0
    /// The disk budget.
    public var budget = 0
    /// The RAM budget.
    public var ramBudget = 0

    /// None.
    public init() {}

    /// What to do about it.
    var remedy: String {
        func taken(_ count: Int, _ what: String, _ bytes: Int) -> String {
            "\(count) \(count == 1 ? "page" : "pages") \(what) would take \(bytes) bytes of disk.budget, \(budget)"
        }
        // What they take leaves less than half to all others.
        if pinnedBytes > budget / 2, pinnedBytes >= leasedBytes {
            return taken(pinned, "that must stay because of a pin", pinnedBytes)
                + ": unpin some (TOUCH, or a policy without pin), or raise disk.budget"
        }
        if leasedBytes > budget / 2 {
            return taken(leased, "under lease or in work", leasedBytes)
                + ": try again when they have been released, or raise disk.budget"
        }
        return "raise disk.budget, \(budget) bytes, "
            + (budget > ramBudget ? "" : "above ram.budget, \(ramBudget) bytes, ")
            + "or drop pages"
    }
}
