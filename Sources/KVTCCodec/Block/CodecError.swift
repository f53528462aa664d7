import KVTCModel

/// Why a page could not be encoded or a block not decoded. Values, so that a caller can count and answer them.
public enum CodecError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A block or profile whose bytes contradict themselves: checksum, lengths or symbols. Treat as a miss.
    case corrupt(String)
    /// An argument outside its limits; `field` is the name the caller used.
    case invalid(field: String, String)
    /// A block or page of another model than the codec's.
    case mismatch(String)
    /// The mode needs something the codec was made without, such as a profile.
    case unsupported(String)

    /// One line for people, naming the field and the limit where there is one.
    public var description: String {
        switch self {
        case .corrupt(let what): "corrupt: \(what)"
        case .invalid(let field, let what): "\(field): \(what)"
        case .mismatch(let what): "does not match: \(what)"
        case .unsupported(let what): "not supported: \(what)"
        }
    }

    init(_ error: ModelError) { self = .invalid(field: error.field, error.message) }
}
