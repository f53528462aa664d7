import KVTCModel

/// When pages are written to where other machines find them.
public enum SharedWriting: String, Sendable, CaseIterable {
    /// Other machines' pages are read, none is written.
    case never
    /// Pages that are coded anyway.
    case coded
    /// The same, and pages that wait are coded for it when there is nothing else to do.
    case idle
    /// The same, and no page waits.
    case always
}

/// Whether the machines that keep pages for others can read them.
public enum SharedEncryption: String, Sendable, CaseIterable {
    case none
    case aesGCM = "aes-gcm"
}

extension DaemonConfiguration {
    /// Where the machines of a fleet share pages.
    public struct Shared: Sendable, Equatable {
        /// Of the servers; empty: nothing is shared.
        public var url = ""
        /// Files, empty for none: the servers' password, the fleet's secret, and what TLS needs.
        public var passwordFile = "", secretFile = "", authorityFile = "", certificateFile = "", keyFile = ""
        /// What the names of all keys begin with.
        public var prefix = "kvtc"
        /// When pages are written there.
        public var write = SharedWriting.idle
        /// Bytes a second that may be written; 0 for no limit.
        public var writeBudget = 0
        /// Until the first answer to a LOOKUP, and between the pages of a PULL.
        public var lookupMilliseconds = 5, pullMilliseconds = 500
        /// Seconds for which a page that was not there is not asked for again.
        public var absentSeconds = 5
        /// Whether servers can read them.
        public var encryption = SharedEncryption.none

        /// Nothing shared.
        public init() {}
    }

    /// When pages are coded whose sessions do not say: what other machines are to have cannot wait for RAM to run short.
    var codeInEffect: CodingTime {
        guard !shared.url.isEmpty else { return code }
        switch shared.write {
        case .never, .coded: return code
        case .idle: return CodingTime.soonest([code, .idle]) ?? code
        case .always: return .atOnce
        }
    }
}
