/// A reading of the store's time, which ends of pages are kept in as whole seconds.
struct Moment {
    /// The second that it is in. Pages whose end is no later have expired.
    let second: UInt64
    /// The first full second that is no earlier: a span is counted from there, so that a page never lives shorter than it was
    /// promised, and less than a second longer.
    let next: UInt64

    init(milliseconds: UInt64) {
        second = milliseconds / 1000
        next = second + (milliseconds % 1000 > 0 ? 1 : 0)
    }
}
