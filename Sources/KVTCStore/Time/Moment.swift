/// A reading of the store's time.
struct Moment {
    let milliseconds: UInt64

    /// The second that it is in.
    var second: UInt64 { milliseconds / 1000 }

    /// The first full second that is no earlier. Ends are kept as full seconds: counted from there, no page lives shorter than it
    /// was promised.
    var next: UInt64 { second + (milliseconds % 1000 > 0 ? 1 : 0) }
}
