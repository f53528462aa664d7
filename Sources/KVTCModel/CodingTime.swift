/// When a page is coded that no window holds any more. Raw values are those of configuration and status.
public enum CodingTime: String, Hashable, Sendable, CaseIterable {
    /// As soon as a coder is free.
    case atOnce = "at_once"
    /// As soon as the daemon has nothing else to do, and when RAM runs short.
    case idle = "idle"
    /// When RAM runs short.
    case underPressure = "under_pressure"

    /// The one of several sessions that share a page that is the soonest.
    package static func soonest(_ wishes: some Sequence<CodingTime?>) -> CodingTime? {
        let wishes = Set(wishes.compactMap(\.self))
        return allCases.first(where: wishes.contains)
    }
}
