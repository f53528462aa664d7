import CKernels

/// The number format of a cached key or value. Raw values are those of the wire and block formats.
public enum ElementType: UInt8, Sendable, CaseIterable {
    case f16 = 1
    case bf16 = 2
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

    var kernelCode: kv_element {
        switch self {
        case .f16: KV_F16
        case .bf16: KV_BF16
        case .f32: KV_F32
        case .e4m3: KV_E4M3
        case .e5m2: KV_E5M2
        }
    }
}
