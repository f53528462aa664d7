/// What rate control aims at.
public enum Quality: Hashable, Sendable {
    /// What a policy's figure means. Raw values are those of the wire format.
    public enum Kind: UInt8, Sendable, CaseIterable {
        /// Raw bytes over coded bytes to reach.
        case ratio = 0
        /// Relative squared error not to exceed.
        case distortion = 1
    }

    /// Raw bytes of the coded rows over the bytes of the block, protected rows' section left out: 1 to 1000.
    case ratio(Float)
    /// Largest squared error of the coded rows, weighted as the profile says, over their expected energy: 0 to 1.
    case distortion(Float)
    /// The ratio, or as much less of it as a bound on the distortion takes.
    case bounded(ratio: Float, distortion: Float)

    /// The ratio aimed at.
    public var ratio: Float? {
        switch self {
        case .ratio(let ratio), .bounded(let ratio, _): ratio
        case .distortion: nil
        }
    }

    /// The distortion not to exceed.
    public var distortion: Float? {
        switch self {
        case .distortion(let bound), .bounded(_, let bound): bound
        case .ratio: nil
        }
    }

    /// Throws where the figure is outside its limits.
    public func validate() throws(ModelError) {
        if let ratio, !(1...1000).contains(ratio) {
            throw ModelError(field: "quality", "ratio \(ratio); 1 to 1000 are allowed")
        }
        if let distortion, !(distortion > 0 && distortion <= 1) {
            throw ModelError(field: "quality", "distortion \(distortion); above 0 and up to 1 is allowed")
        }
    }
}
