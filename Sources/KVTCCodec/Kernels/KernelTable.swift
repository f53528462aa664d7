import CKernels
import KVTCModel

/// The C kernels of one instruction-set tier.
package struct KernelTable: @unchecked Sendable {
    // Justified: the pointer names a constant table of pure functions that lives as long as the process.
    let pointer: UnsafePointer<kv_kernels>

    /// The fastest this machine has, or the one that the environment variable KVTC_KERNELS names.
    package static let best: KernelTable = {
        guard let table = kv_best() else {
            fatalError(
                "KVTC_KERNELS names no kernels that this machine can run: scalar, avx2, avx512-vnni, amx-int8 or neon")
        }
        return KernelTable(pointer: table)
    }()
    /// The portable specification.
    package static let scalar = KernelTable(pointer: kv_scalar())
    /// Every one this machine can run.
    package static var all: [KernelTable] {
        [kv_scalar(), kv_avx2(), kv_avx512(), kv_amx(), kv_neon()].compactMap { $0.map(KernelTable.init(pointer:)) }
    }

    /// Of the digits that codes are split into.
    var digitBits: Int { Int(pointer.pointee.transform.digit_bits) }
    /// Quads of codes that lie side by side.
    var line: Int { Int(pointer.pointee.transform.line) }

    func toFloat(
        _ element: Element, _ source: UnsafeRawPointer, _ target: UnsafeMutablePointer<Float>, _ count: Int
    ) {
        pointer.pointee.convert.to_float(element.kernelCode, source, target, count)
    }

    func fromFloat(
        _ element: Element, _ source: UnsafePointer<Float>, _ target: UnsafeMutableRawPointer, _ count: Int
    ) -> Int {
        pointer.pointee.convert.from_float(element.kernelCode, source, target, count)
    }
}

/// Elements to floats, for readers of sample files.
package func convertToFloat(
    _ element: Element, _ source: UnsafeRawPointer, _ target: UnsafeMutablePointer<Float>, _ count: Int
) {
    KernelTable.best.toFloat(element, source, target, count)
}
