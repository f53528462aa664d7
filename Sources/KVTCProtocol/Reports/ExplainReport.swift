// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// What EXPLAIN answers: where pages are and why. Keys are these names in snake case, always there; readers pass over keys that
/// they do not know.
public struct ExplainReport: Codable, Sendable {
    /// The session that was asked about.
    public struct Session: Codable, Sendable {
        public var id: UInt32 = 0
        public var name = ""
        public var tenant: UInt32 = 0
        public var mode = "", code = ""
        public var sink: UInt32 = 0, window: UInt32 = 0
        public var tokens = 0, pages = 0
        public var tokenBytes = 0
        public var isIdle = false

        package init() {}
    }

    /// Why a page is as it is, by names that are never used for anything else.
    public enum Reason: String, Codable, Sendable, CaseIterable {
        /// A session's window holds it: exact until it leaves the window.
        case window
        /// Rows of it are a session's sink, or in a protected range: they stay exact.
        case sink, range
        /// Rows of it stay exact for a session that is over.
        case retained
        /// The policy wants it lossless.
        case lossless
        /// It may be coded, and waits until RAM runs short, or until nothing else is to be done.
        case pressure, idle
        /// It is on its way to a coder, or with one, or its block takes its place just now.
        case queued, encoding, replacing
        /// No open session says how to code it: a push does.
        case unclaimed
        /// It was coded, and came out exact: nothing smaller was within what was asked.
        case keptLossless = "kept_lossless"
        /// It was coded as the policy says, or near-losslessly for an idle window.
        case coded, near
        /// It may not be dropped to make room.
        case pinned, leased
        /// It is what the session was promised no more: a pull gives a miss.
        case promise
    }

    /// One page.
    public struct Page: Codable, Sendable {
        /// In hexadecimal, as the client knows it.
        public var key = ""
        public var tenant: UInt32 = 0
        public var first = 0, tokens = 0
        /// "ram", "disk" (only there) or "absent"; and "raw" or "coded".
        public var place = "absent"
        @OrNull public var form: String?
        /// Whether the disk has it, too.
        public var isOnDisk = false
        /// How it is coded; nil for a page of which only the disk knows.
        @OrNull public var mode: String?
        /// The profile's id in hexadecimal.
        @OrNull public var profile: String?
        /// As stored, and before coding.
        public var bytes = 0, rawBytes = 0
        /// The error of its coded rows, relative and squared, as the coder noted it; 0 where all rows are exact.
        @OrNull public var distortion: Double?
        @OrNull public var exactTokens: Int?
        public var reasons: [Reason] = []
        /// Open sessions that have it.
        public var sessions: [UInt32] = []
        public var priority: UInt8 = 0
        public var leases = 0
        /// Seconds until it is a miss; nil: never.
        @OrNull public var expiresS: UInt64?
        /// What a pull of it takes by the latest pulls of its kind, in microseconds; nil without one.
        @OrNull public var pullUs: Double?
        /// What leaves RAM before it, of its tenant's; nil where that is much, or it is not in RAM.
        @OrNull public var pagesBefore: Int?
        @OrNull public var bytesBefore: Int?
        /// Segments that are older than the one it lies in; nil where it is not on disk.
        @OrNull public var segmentsBefore: Int?

        package init() {}
    }

    /// Nil where keys were asked for without one.
    @OrNull public var session: Session?
    /// Where in the session the first page stands, and the index to go on from; nil at the end.
    public var first = 0
    @OrNull public var next: Int?
    public var pages: [Page] = []

    package init() {}
}
