/// The slots that the keys of a cluster are in: CRC-16/XMODEM of the key, or of what stands in its first pair of braces, modulo 16384.
/// Source: Redis cluster specification, "Key distribution model" and "Hash tags".
enum HashSlot {
    static let count = 16_384

    static func of(_ key: [UInt8]) -> Int {
        guard let opening = key.firstIndex(of: 0x7B), let closing = key[(opening + 1)...].firstIndex(of: 0x7D),
            closing > opening + 1
        else { return Int(checksum(key[...])) % count }
        return Int(checksum(key[(opening + 1)..<closing])) % count
    }

    static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt16 {
        bytes.reduce(0) { sum, byte in sum << 8 ^ table[Int(sum >> 8 ^ UInt16(byte))] }
    }

    private static let table: [UInt16] = (0..<256).map { byte in
        (0..<8).reduce(UInt16(byte) << 8) { sum, _ in sum & 0x8000 == 0 ? sum << 1 : sum << 1 ^ 0x1021 }
    }
}
