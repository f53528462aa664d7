import FoundationEssentials

/// The daemon's answer to STATUS, as far as `kvtcctl` shows it. Unknown fields are ignored, so that an older client
/// can read a newer daemon.
public struct StatusReport: Decodable, Sendable {
    /// Bytes and pages of the RAM or the disk tier.
    public struct Tier: Decodable, Sendable {
        /// Bytes in use.
        public var used: UInt64
        /// Bytes allowed; 0 when the tier is off.
        public var budget: UInt64
        /// Pages in it.
        public var pages: UInt64
        /// Files of the disk tier.
        public var segments: UInt64?
    }

    /// Both tiers.
    public struct Tiers: Decodable, Sendable {
        /// The RAM tier.
        public var ram: Tier
        /// The disk tier.
        public var disk: Tier
    }

    /// Pages by state.
    public struct Pages: Decodable, Sendable {
        /// In RAM, not coded yet.
        public var raw: UInt64
        /// In RAM, coded.
        public var coded: UInt64
        /// On disk and not in RAM.
        public var diskOnly: UInt64
    }

    /// Bytes since the start.
    public struct Bytes: Decodable, Sendable {
        /// Taken from workers.
        public var rawIn: UInt64
        /// Kept now, coded and raw, both tiers.
        public var stored: UInt64
        /// Given back to workers.
        public var returned: UInt64
        /// Written to disk for all users; for administrators.
        public var written: UInt64?
    }

    /// Jobs that wait.
    public struct Queues: Decodable, Sendable {
        /// Pages to be encoded.
        public var encode: UInt64
        /// Pages to be decoded.
        public var decode: UInt64
    }

    /// How long an operation takes, in microseconds.
    public struct Latency: Decodable, Sendable {
        /// Half of them were faster.
        public var p50: Double
        /// Nine of ten were faster.
        public var p90: Double
        /// 99 of 100 were faster.
        public var p99: Double
        /// How many were measured.
        public var count: UInt64
    }

    /// A profile in memory.
    public struct Profile: Decodable, Sendable {
        /// Its id in hexadecimal.
        public var id: String
        /// Its file in the profile directory; nil where that holds another by now and only sessions still use this one.
        public var file: String?
        /// The model it was calibrated for.
        public var model: String
        /// The memory it takes.
        public var bytes: UInt64?
        /// Whether it is in the profile directory, and so outlives the daemon.
        public var stored: Bool?
    }

    /// Requests that got an error for their answer, without faults of the daemon.
    public struct Refused: Decodable, Sendable {
        /// How often one error was the answer.
        public struct Code: Decodable, Sendable {
            /// The error's name.
            public var code: String
            /// How often.
            public var count: UInt64
        }
        /// The latest of them.
        public struct Last: Decodable, Sendable {
            /// The error's name.
            public var code: String
            /// The request's name.
            public var request: String
            /// The field at fault; empty for none.
            public var field: String
            /// What was wrong.
            public var message: String
            /// Seconds since 1970.
            public var at: UInt64
        }
        /// All of them.
        public var total: UInt64
        /// By error.
        public var byCode: [Code]
        /// The latest; nil without any.
        public var last: Last?
    }

    /// One token stream.
    public struct Session: Decodable, Sendable {
        /// The daemon's number of it.
        public var id: UInt32
        /// The worker's name for it.
        public var name: String
        /// The user id it belongs to.
        public var tenant: UInt32
        /// The profile's id in hexadecimal; nil for none.
        public var profile: String?
        /// How pages that leave the window are coded.
        public var mode: String
        /// What `quality` means: "ratio" or "distortion".
        public var qualityKind: String
        /// The quality asked for.
        public var quality: Double
        /// Protected tokens at the start.
        public var sink: UInt32
        /// Protected tokens at the end.
        public var window: UInt32
        /// Tokens pushed.
        public var tokens: UInt64
        /// Its pages.
        public var pages: UInt64
        /// Its pages that are not coded yet.
        public var rawPages: UInt64
        /// Whether its pages are never evicted.
        public var pinned: Bool
        /// Seconds that a page lives after its last use; 0 for ever.
        public var ttlS: UInt32
        /// Who goes first under pressure: 255 stays longest.
        public var priority: UInt32
        /// Seconds since the last request.
        public var idleS: Double
        /// Distortion allowed to its window while it is idle; nil: the window stays lossless.
        public var near: Double?
        /// Distortion that no coded page may exceed.
        public var distortionLimit: Double?
        /// Rows that stayed lossless by themselves.
        public var outlierRows: UInt64?
        /// Its pages that got a lower ratio than asked for, to keep the limit.
        public var limited: UInt64?
        /// Its pages that are lossless though they are outside of the window: no coding was within the limit, or smaller.
        public var keptLossless: UInt64?
        /// Its pages that were coded near-losslessly while it was idle.
        public var nearPages: UInt64?
        /// Distortion of its latest pages over the one its profile expects at their ratio; nil without such pages.
        public var drift: Double?
        /// Whether that is so much that the profile no longer fits.
        public var drifting: Bool?
    }

    /// The daemon's version.
    public var version: String
    /// A number, in hexadecimal, that is new at every start.
    public var instance: String
    /// Seconds since the start.
    public var uptimeS: Double
    /// The user id that asked.
    public var tenant: UInt32
    /// "ready", "degraded" or "stopping".
    public var state: String
    /// Why the state is "degraded".
    public var stateReason: String?
    /// RAM and disk.
    public var tiers: Tiers
    /// Pages by state.
    public var pages: Pages
    /// Bytes in and out.
    public var bytes: Bytes
    /// Raw bytes over stored bytes of the pages that are there; nil without pages.
    public var ratio: Double?
    /// Events since the start, by name.
    public var counters: [String: UInt64]
    /// Requests that were refused; nil from a daemon that does not count them apart.
    public var refused: Refused?
    /// Jobs that wait.
    public var queues: Queues
    /// Percentiles by operation.
    public var latencyUs: [String: Latency]
    /// Profiles in memory.
    public var profiles: [Profile]
    /// Where profiles are loaded from; nil for nowhere, and for those who need not know.
    public var profileDirectory: String?
    /// Live sessions.
    public var sessions: [Session]

    /// Reads the JSON document of a STATUS reply.
    public init(json: String) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(StatusReport.self, from: Data(json.utf8))
    }
}
