import CKernels

/// The tiers of this machine beside the scalar one.
var vectors: [UnsafePointer<kv_kernels>] { [kv_avx2(), kv_avx512(), kv_amx(), kv_neon()].compactMap(\.self) }
