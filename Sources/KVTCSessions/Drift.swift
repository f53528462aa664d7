import Glibc

/// How far a session's pages lie from what its profile expects, as texts do that are unlike those calibrated on.
package struct Drift: Hashable, Sendable {
    /// Pages before which nothing is said.
    package static let fewest = 8
    /// About as many pages count, so that a change of subject shows.
    static let span = 32
    /// A factor above this is an alarm. With a profile calibrated on manuals (SmolLM2-135M, 16× and 45×): other manuals 0.7,
    /// program text 1.1 to 1.7, tokens drawn at random 1.6 to 1.7, Japanese 2.7 to 3.2.
    package static let alarm = 1.5

    /// Pages that were compared.
    package private(set) var pages = 0
    private var mean = 0.0
    private var hasAlarmed = false

    package init() {}

    /// Distortion over what is expected, as a geometric mean; nil without a page.
    package var factor: Double? { pages == 0 ? nil : exp(mean) }

    /// Whether the profile no longer fits.
    package var isAlarming: Bool { pages >= Drift.fewest && exp(mean) > Drift.alarm }

    /// Adds a page's ``CodingOutcome/excess``; true when that raises the session's first alarm.
    package mutating func add(_ excess: Double?) -> Bool {
        guard let excess else { return false }
        pages += 1
        mean += (excess - mean) / Double(min(pages, Drift.span))
        defer { hasAlarmed = hasAlarmed || isAlarming }
        return isAlarming && !hasAlarmed
    }
}
