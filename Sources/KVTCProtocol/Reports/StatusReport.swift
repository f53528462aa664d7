// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// What STATUS answers, as the daemon writes and clients read it: keys are these names in snake case, always there. Readers
/// pass over keys that they do not know.
public struct StatusReport: Codable, Sendable {
    /// RAM and disk; a budget of 0 is a tier that is off.
    public struct Tiers: Codable, Sendable {
        /// Bytes and pages in RAM.
        public struct RAM: Codable, Sendable {
            public var used = 0, budget = 0, pages = 0
            /// Why the kernel gives no memory for the rest of the budget.
            @OrNull public var refusal: String?
        }
        /// Bytes and pages on disk, in so many files.
        public struct Disk: Codable, Sendable { public var used = 0, budget = 0, pages = 0, segments = 0 }
        public var ram = RAM()
        public var disk = Disk()
    }

    /// Pages in RAM that are not coded yet and that are, and those on disk only; and pages that may be coded and wait for a reason.
    public struct Pages: Codable, Sendable { public var raw = 0, coded = 0, diskOnly = 0, waiting = 0 }

    public struct Bytes: Codable, Sendable {
        /// Taken from workers since the start.
        public var rawIn: UInt64 = 0
        /// Kept now, coded and raw, both tiers.
        public var stored: UInt64 = 0
        /// Given back to workers since the start.
        public var returned: UInt64 = 0
        /// To disk since the start, by all tenants; for administrators.
        @OrNull public var written: UInt64?
    }

    /// Events since the start.
    public struct Counters: Codable, Sendable {
        public var pushed: UInt64 = 0, present: UInt64 = 0, hits: UInt64 = 0, misses: UInt64 = 0
        /// Damaged pages, found by any means, and those that a PULL asked for.
        public var corrupt: UInt64 = 0, corruptPulls: UInt64 = 0
        public var evictedToDisk: UInt64 = 0
        /// Pages let go for want of room, and those that DROP named.
        public var dropped: UInt64 = 0, droppedByRequest: UInt64 = 0
        public var lost: UInt64 = 0, encoded: UInt64 = 0, nonFinite: UInt64 = 0
        /// Faults of the daemon and its disk.
        public var errors: UInt64 = 0
        public var recovered: UInt64 = 0, recoveredFromRam: UInt64 = 0
        /// As ``Session/outlierRows`` and its neighbours.
        public var outlierRows: UInt64 = 0, limited: UInt64 = 0, keptLossless: UInt64 = 0, near: UInt64 = 0
        /// Pages coded near-losslessly that were pushed anew.
        public var renewed: UInt64 = 0
        public var driftAlarms: UInt64 = 0, logDropped: UInt64 = 0

        package init() {}
    }

    /// Requests that got an error for their answer, without faults of the daemon.
    public struct Refused: Codable, Sendable {
        public struct Code: Codable, Sendable {
            public var code: String
            public var count: UInt64

            package init(code: String, count: UInt64) { (self.code, self.count) = (code, count) }
        }
        public struct Last: Codable, Sendable {
            public var code: String, request: String
            /// The field at fault; empty for none.
            public var field: String
            public var message: String
            /// Seconds since 1970.
            public var at: UInt64

            package init(_ error: WireError, request: String, at: UInt64) {
                (code, field, message) = ("\(error.code)", error.field, error.message)
                (self.request, self.at) = (request, at)
            }
        }
        public var total: UInt64 = 0
        public var byCode: [Code] = []
        @OrNull public var last: Last?

        package init() {}
    }

    /// Jobs that wait.
    public struct Queues: Codable, Sendable { public var encode = 0, decode = 0 }

    /// How long an operation takes, in microseconds, and how many were measured.
    public struct Latency: Codable, Sendable {
        public var p50 = 0.0, p90 = 0.0, p99 = 0.0
        public var count: UInt64 = 0
        /// Of all that were measured.
        public var sumUs = 0.0
        /// How many took less than 2^10 ns, 2^11 ns and so on up to 2^36 ns, 69 seconds.
        public var below: [UInt64] = []
        /// The exponents of ``below``.
        public static let exponents = 10...36

        package init() {}
    }

    public struct Latencies: Codable, Sendable {
        public var push = Latency(), pull = Latency(), encode = Latency(), decode = Latency()
    }

    /// What it costs to bring pages of a shape back, from request to reply: medians of the latest pulls of whole pages.
    public struct RestoreCost: Codable, Sendable {
        /// Of pages from one source: microseconds a token, nil without a pull, and how many pulls were measured.
        public struct Source: Codable, Sendable {
            @OrNull public var usPerToken: Double?
            public var pulls: UInt64 = 0

            package init(nanoseconds: Double?, pulls: UInt64) {
                (usPerToken, self.pulls) = (nanoseconds.map { $0 / 1000 }, pulls)
            }
        }
        public var tenant: UInt32
        /// The profile's id in hexadecimal.
        @OrNull public var profile: String?
        public var tokenBytes: Int
        /// Pages in RAM as they were pushed, those coded there, and those on disk.
        public var raw: Source, coded: Source, disk: Source
        /// Pages with other machines; earlier daemons say nothing of them.
        public var shared: Source?

        package init(
            tenant: UInt32, profile: String?, tokenBytes: Int, raw: Source, coded: Source, disk: Source, shared: Source
        ) {
            (self.tenant, self.tokenBytes) = (tenant, tokenBytes)
            (self.raw, self.coded, self.disk, self.shared) = (raw, coded, disk, shared)
            self.profile = profile
        }
    }

    /// A profile in memory.
    public struct Profile: Codable, Sendable {
        /// In hexadecimal.
        public var id = ""
        /// In the profile directory; nil where that holds another by now and only sessions still use this one.
        @OrNull public var file: String?
        public var model = ""
        /// Of memory.
        public var bytes = 0
        /// Whether it is in the profile directory, and so outlives the daemon.
        public var stored = false
        /// The digest of the weights that it was calibrated on.
        @OrNull public var weights: String?
        /// Why it is not in the profile directory.
        @OrNull public var problem: String?

        package init() {}
    }

    /// What one tenant has: bytes in RAM and on disk, stored bytes of pages.
    public struct Tenant: Codable, Sendable {
        public var tenant: UInt32 = 0
        public var pages = 0, ram = 0, disk = 0
        public var stored: UInt64 = 0, evictedToDisk: UInt64 = 0, dropped: UInt64 = 0

        package init() {}
    }

    /// One token stream.
    public struct Session: Codable, Sendable {
        public var id: UInt32 = 0
        public var name = ""
        public var tenant: UInt32 = 0
        public var connection: UInt64 = 0
        /// The profile's id in hexadecimal.
        @OrNull public var profile: String?
        /// The session's policy: how its pages are coded, and what `quality` means, by their names.
        public var mode = "", qualityKind = ""
        public var quality: Float = 0
        public var sink: UInt32 = 0, window: UInt32 = 0
        public var tokens = 0, pages = 0, rawPages = 0
        public var pinned = false
        /// When its pages are coded, by the name that the configuration has for it.
        public var code = ""
        /// Seconds that a page lives after its last use; 0 for ever.
        public var ttlS: UInt32 = 0
        /// Who goes first under pressure: 255 stays longest.
        public var priority: UInt8 = 0
        /// Seconds since the last request.
        public var idleS = 0.0
        /// Distortion allowed to its window while it is idle; nil: the window stays lossless.
        @OrNull public var near: Float?
        /// Distortion that no coded page may exceed.
        @OrNull public var distortionLimit: Float?
        public var keepOutliers = true
        public var isIdle = false
        /// Rows that stayed lossless by themselves.
        public var outlierRows: UInt64 = 0
        /// Its pages that got a lower ratio than asked for, to keep the limit.
        public var limited: UInt64 = 0
        /// Its pages that are lossless though they are outside of the window: no coding was within the limit, or smaller.
        public var keptLossless: UInt64 = 0
        /// Its pages that were coded near-losslessly while it was idle.
        public var nearPages: UInt64 = 0
        /// Distortion of its latest pages over the one its profile expects at their ratio; nil without such pages.
        @OrNull public var drift: Double?
        public var driftPages = 0
        /// Whether the drift is so large that the profile no longer fits.
        public var drifting = false

        package init() {}
    }

    public var version = ""
    /// A number, in hexadecimal, that is new at every start.
    public var instance = ""
    /// Seconds since the start.
    public var uptimeS = 0.0
    /// Who asked.
    public var tenant: UInt32 = 0
    /// "ready", "degraded", "draining" or "stopping".
    public var state = "ready"
    /// Why the state is "degraded".
    @OrNull public var stateReason: String?
    public var tiers = Tiers()
    /// The tier that machines share; nil where there is none, and for those who are no administrators.
    @OrNull public var shared: SharedReport?
    public var pages = Pages()
    public var bytes = Bytes()
    /// Raw bytes over stored bytes of the pages that are there; nil without pages.
    @OrNull public var ratio: Double?
    public var counters = Counters()
    public var refused = Refused()
    public var queues = Queues()
    public var latencyUs = Latencies()
    public var restoreCosts: [RestoreCost] = []
    public var profiles: [Profile] = []
    /// Where profiles are loaded from; nil for nowhere, and for those who need not know.
    @OrNull public var profileDirectory: String?
    public var leases = 0
    public var tenants: [Tenant] = []
    public var sessions: [Session] = []

    package init() {}
}
