import KVTCCodec

extension ElementType {
    /// Whether a page has a NaN or an infinity anywhere. Exponents are compared as bits, so the order of elements and
    /// their alignment do not matter.
    func hasNonFinite(_ page: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .f16: ElementType.any(page, UInt16.self) { $0 & 0x7C00 == 0x7C00 }
        case .bf16: ElementType.any(page, UInt16.self) { $0 & 0x7F80 == 0x7F80 }
        case .f32: ElementType.any(page, UInt32.self) { $0 & 0x7F80_0000 == 0x7F80_0000 }
        // E4M3 has no infinities: only all ones is not a number.
        case .e4m3: ElementType.any(page, UInt8.self) { $0 & 0x7F == 0x7F }
        case .e5m2: ElementType.any(page, UInt8.self) { $0 & 0x7C == 0x7C }
        }
    }

    @inline(__always)
    private static func any<T: FixedWidthInteger>(
        _ page: UnsafeRawBufferPointer, _: T.Type, _ isBad: (T) -> Bool
    ) -> Bool {
        let size = MemoryLayout<T>.size
        var start = 0
        // Chunks without an early exit inside vectorise; the exit between them keeps bad pages cheap.
        while start < page.count {
            let end = min(start + 4096, page.count - page.count % size)
            guard start < end else { return false }
            var bad = false
            for offset in stride(from: start, to: end, by: size) {
                bad = bad || isBad(T(littleEndian: page.loadUnaligned(fromByteOffset: offset, as: T.self)))
            }
            if bad { return true }
            start = end
        }
        return false
    }
}
