/// What a call is made to do wrong.
package enum Fault: Sendable {
    /// Fail with this errno without any effect.
    case error(Int32)
    /// Transfer half of the bytes (writes only) and fail the rest with this errno.
    case partial(Int32)
    /// Transfer half of the bytes and report that.
    case short
    /// Transfer everything and yet report this errno (writes only).
    case landed(Int32)
    /// Report success and write nothing.
    case dropped
    /// Write to another place of the file, so many bytes further on.
    case misdirected(Int)
    /// Flip this bit of what is transferred.
    case flipped(Int)
}
