/// A place in the log; later records have greater ones.
struct LogPosition: Comparable, Hashable, Sendable {
    var segment: UInt64
    var offset: Int

    static func < (a: LogPosition, b: LogPosition) -> Bool { (a.segment, a.offset) < (b.segment, b.offset) }
}
