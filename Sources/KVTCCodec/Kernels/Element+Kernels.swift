import CKernels
import KVTCModel

extension Element {
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
