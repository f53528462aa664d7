// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// What SHARED answers, in snake case.
public enum SharedServers {
    /// How quickly servers answer.
    public struct Ping: Codable, Sendable {
        public struct Server: Codable, Sendable {
            public var address: String
            /// Microseconds there and back; null without an answer.
            @OrNull public var us: Double?
            /// Why there was none: a reason of `shared.faults` in STATUS.
            @OrNull public var fault: String?

            package init(address: String, us: Double?, fault: String?) {
                self.address = address
                (self.us, self.fault) = (us, fault)
            }
        }
        public var servers: [Server]

        package init(servers: [Server]) { self.servers = servers }
    }

    /// What servers keep.
    public struct Usage: Codable, Sendable {
        public struct Server: Codable, Sendable {
            public var address: String
            @OrNull public var fault: String?
            /// Values of this fleet there and their bytes; extrapolated from a part of them where there are many.
            public var values: UInt64 = 0, bytes: UInt64 = 0
            public var isEstimate = false
            /// Bytes that the server uses for everything, and may use; 0 for no limit.
            public var usedBytes: UInt64 = 0, maxBytes: UInt64 = 0
            /// What it lets go when it may use no more: `maxmemory-policy`.
            public var policy = ""

            package init(address: String, fault: String?) {
                self.address = address
                self.fault = fault
            }
        }
        public var servers: [Server]

        package init(servers: [Server]) { self.servers = servers }
    }

    /// How far a drop is.
    public struct Drop: Codable, Sendable {
        /// Values removed by this request.
        public var removed: UInt64
        /// What the next request names; null when all are removed.
        @OrNull public var next: String?

        package init(removed: UInt64, next: String?) {
            self.removed = removed
            self.next = next
        }
    }
}
