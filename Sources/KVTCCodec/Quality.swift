/// What rate control aims at.
public enum Quality: Hashable, Sendable {
    /// Raw bytes of the coded rows over the bytes of the block, protected rows' section left out: 1 to 1000.
    case ratio(Float)
    /// Largest squared error of the coded rows, weighted as the profile says, over their expected energy: 0 to 1.
    case distortion(Float)

    /// Throws where the figure is outside its limits.
    public func validate() throws(CodecError) {
        switch self {
        case .ratio(let ratio) where !(1...1000).contains(ratio):
            throw .invalid(field: "quality", "ratio \(ratio); 1 to 1000 are allowed")
        case .distortion(let bound) where !(bound > 0 && bound <= 1):
            throw .invalid(field: "quality", "distortion \(bound); above 0 and up to 1 is allowed")
        default: return
        }
    }
}
