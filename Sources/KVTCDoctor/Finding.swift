import KVTCProtocol

/// How much a finding matters.
public enum Severity: String, Encodable, Sendable, CaseIterable {
    /// As it should be.
    case ok
    /// Worth knowing; also what could not be seen.
    case note
    /// Works, and will not always, or not as well as it could.
    case warning
    /// Does not work.
    case problem
}

/// What one check saw.
public struct Finding: Encodable, Sendable {
    /// The check's name, such as `disk.space`.
    public var check: String
    /// How much it matters.
    public var severity: Severity
    /// The file, call or answer that was looked at.
    public var lookedAt: String
    /// What is there.
    public var found: String
    /// What follows from that; nil where all is well.
    @OrNull public var means: String?
    /// What to do about it, a command where there is one.
    @OrNull public var mend: String?

    static func ok(_ check: String, at place: String, _ found: String) -> Finding {
        Finding(check: check, severity: .ok, lookedAt: place, found: found, means: nil, mend: nil)
    }

    static func note(
        _ check: String, at place: String, _ found: String, means: String, mend: String? = nil
    ) -> Finding {
        Finding(check: check, severity: .note, lookedAt: place, found: found, means: means, mend: mend)
    }

    static func warning(_ check: String, at place: String, _ found: String, means: String, mend: String) -> Finding {
        Finding(check: check, severity: .warning, lookedAt: place, found: found, means: means, mend: mend)
    }

    static func problem(_ check: String, at place: String, _ found: String, means: String, mend: String) -> Finding {
        Finding(check: check, severity: .problem, lookedAt: place, found: found, means: means, mend: mend)
    }

    /// What the caller may not look at.
    static func unseen(_ check: String, at place: String, _ what: String, mend: String) -> Finding {
        note(
            check, at: place, "\(what) could not be seen", means: "Nothing can be said about it from here.", mend: mend)
    }
}
