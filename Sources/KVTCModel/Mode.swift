/// How the rows of a page are coded. Raw values are those of the wire and block formats.
public enum Mode: UInt8, Sendable, CaseIterable {
    /// The page as it came, in canonical row order. Blocks only: no policy asks for it.
    case raw = 0
    /// Byte planes through LZ4.
    case lossless = 1
    /// Weighted transform, common-step quantiser, rANS: the default.
    case transform = 2
    /// The published KVTC pipeline.
    case kvtc = 3
    /// Groups of 32 values, 8 bits each and a 16-bit scale.
    case quant8 = 4
    /// Groups of 32 values, 4 bits each and a 16-bit scale.
    case quant4 = 5

    /// Whether every row comes back bit-identical.
    public var isExact: Bool { self == .raw || self == .lossless }

    /// Whether the mode needs what calibration learned.
    public var needsProfile: Bool { self == .transform || self == .kvtc }

    /// Bits a value that the mode keeps of every page, which makes modes comparable: 0 where that is for the quality to say.
    /// The error of quantisers is not weighed as a profile says, so that no bound on the distortion can be held against it.
    public var bits: Int {
        switch self {
        case .raw, .lossless: .max
        case .quant8: 8
        case .quant4: 4
        case .transform, .kvtc: 0
        }
    }
}
