// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// What the tier that machines share has done since the start.
public struct SharedReport: Codable, Sendable {
    /// A number of something, and of what.
    public struct Count: Codable, Sendable {
        public var reason: String
        public var count: UInt64

        package init(reason: String, count: UInt64) { (self.reason, self.count) = (reason, count) }
    }
    /// One of the servers.
    public struct Server: Codable, Sendable {
        public var address: String
        /// Whether it is asked: "closed" where it is, "open" where it has failed and is left alone, "half-open" where it is tried again.
        public var breaker: String
        /// What was wrong last, and in whose words.
        @OrNull public var fault: String?
        @OrNull public var reason: String?
        /// Requests that wait for its answer.
        public var inFlight: Int
        public var bytesOut: UInt64, bytesIn: UInt64
        /// Microseconds to an answer.
        public var p50 = 0.0, p99 = 0.0

        package init(address: String, breaker: String, inFlight: Int, bytesOut: UInt64, bytesIn: UInt64) {
            (self.address, self.breaker, self.inFlight) = (address, breaker, inFlight)
            (self.bytesOut, self.bytesIn) = (bytesOut, bytesIn)
        }

        /// Whether it is asked. One that answered after it had failed is, and "half-open" until it has answered a question, too.
        public var isUp: Bool { breaker != "open" }
    }

    /// Pages that were looked for: sent, found, not there, and known not to be there and not sent.
    public var asked: UInt64 = 0, hits: UInt64 = 0, absent: UInt64 = 0, knownAbsent: UInt64 = 0
    /// Pages brought here and bytes of their blocks; pages written and bytes of their values.
    public var fetchedPages: UInt64 = 0, fetchedBytes: UInt64 = 0, writtenPages: UInt64 = 0, writtenBytes: UInt64 = 0
    /// Pages that were there already and not written, and those that wait now.
    public var known: UInt64 = 0, waiting = 0
    /// Pages that were not written although they were to be.
    public var heldBack: [Count] = []
    public var removed: UInt64 = 0
    /// Answers that were none.
    public var faults: [Count] = []
    /// Why nothing is written for a while.
    @OrNull public var pausedFor: String?
    /// How long lookups of any number of pages took, and bringing one page.
    public var lookup = StatusReport.Latency(), fetch = StatusReport.Latency()
    public var servers: [Server] = []

    package init() {}
}
