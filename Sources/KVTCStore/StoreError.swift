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
