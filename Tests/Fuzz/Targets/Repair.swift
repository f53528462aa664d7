import KVTCStore

private func word<T: FixedWidthInteger>(_ bytes: [UInt8], _ at: Int, _: T.Type) -> T {
    bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: at, as: T.self)) }
}

private func store<T: FixedWidthInteger>(_ value: T, _ bytes: inout [UInt8], _ at: Int) {
    bytes.withUnsafeMutableBytes { $0.storeBytes(of: value.littleEndian, toByteOffset: at, as: T.self) }
}

private func sum(_ bytes: [UInt8], _ range: Range<Int>, seed: UInt64 = 0) -> UInt64 {
    bytes.withUnsafeBytes { checksum(UnsafeRawBufferPointer(rebasing: $0[range]), seed: seed) }
}

/// Puts the checksums of a segment right, by the offsets of DiskFormat.
enum SegmentBytes {
    static func repaired(_ input: [UInt8]) -> [UInt8] {
        var file = input
        guard file.count >= 64 else { return file }
        // The name says 1; another number would only ever be set aside.
        store(UInt64(1), &file, 16)
        store(sum(file, 0..<56), &file, 56)
        let salt = word(file, 24, UInt64.self)
        var offset = 64
        while offset + 128 <= file.count {
            let payload = min(Int(clamping: word(file, offset + 24, UInt64.self)), file.count - offset - 128)
            // A record that says more than there is stays so: its length is what is looked at.
            store(UInt64(1), &file, offset + 48)
            store(UInt64(offset), &file, offset + 56)
            store(sum(file, offset + 128..<offset + 128 + payload), &file, offset + 96)
            store(sum(file, offset..<offset + 120, seed: salt), &file, offset + 120)
            offset += (128 + payload + 63) / 64 * 64
        }
        return file
    }
}

/// Puts the checksums of an arena's header and slots right, by the offsets of RAMFormat.
enum ArenaBytes {
    static func repaired(_ input: [UInt8]) -> [UInt8] {
        var file = input
        guard file.count >= 4096 else { return file }
        store(sum(file, 0..<56), &file, 56)
        let salt = word(file, 16, UInt64.self)
        let slots = min(Int(clamping: word(file, 24, UInt64.self)), (file.count - 4096) / 128)
        for index in 0..<max(0, slots) {
            let at = 4096 + index * 128
            // Zero means free and stays so.
            guard word(file, at, UInt64.self) != 0 else { continue }
            store(max(1, sum(file, at + 8..<at + 120, seed: salt &+ UInt64(index))), &file, at)
        }
        return file
    }
}
