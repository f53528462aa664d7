/// The number format of a cached key or value. Raw values are those of the wire and block formats.
public enum Element: UInt8, Sendable, CaseIterable {
    /// IEEE 754 half precision.
    case f16 = 1
    /// The upper half of a single-precision number.
    case bf16 = 2
    /// IEEE 754 single precision.
    case f32 = 3
    /// 8-bit float, 4 exponent bits, no infinities (OCP E4M3).
    case e4m3 = 4
    /// 8-bit float, 5 exponent bits (OCP E5M2).
    case e5m2 = 5

    /// Bytes of one element.
    public var bytes: Int {
        switch self {
        case .f16, .bf16: 2
        case .f32: 4
        case .e4m3, .e5m2: 1
        }
    }
}
