import KVTCCodec

/// What the cluster's index says of a profile.
struct ProfileEntry: Hashable, Sendable {
    /// Bytes of a part of a file.
    static let chunkSizes = 1 << 10...16 << 20
    private static let fixedBytes = 44

    var id: ProfileID
    /// The name of its file.
    var name: String
    var bytes: Int
    /// Bytes of each part but the last.
    var chunkBytes: Int

    init(id: ProfileID, name: String, bytes: Int, chunkBytes: Int) {
        (self.id, self.name, self.bytes, self.chunkBytes) = (id, name, bytes, chunkBytes)
    }

    var chunks: Int { (bytes + chunkBytes - 1) / chunkBytes }

    /// Where a part lies in the file.
    func range(_ chunk: Int) -> Range<Int> { chunk * chunkBytes..<min(bytes, (chunk + 1) * chunkBytes) }

    var encoded: [UInt8] {
        id.bytes + withUnsafeBytes(of: UInt64(bytes).littleEndian) { Array($0) }
            + withUnsafeBytes(of: UInt32(chunkBytes).littleEndian) { Array($0) } + Array(name.utf8)
    }

    /// Nil for what no release writes.
    init?(_ encoded: [UInt8]) {
        guard encoded.count > Self.fixedBytes, let id = ProfileID(bytes: Array(encoded[..<32])) else { return nil }
        let (bytes, chunkBytes) = encoded.withUnsafeBytes {
            (
                UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 32, as: UInt64.self)),
                UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 40, as: UInt32.self))
            )
        }
        guard (1...UInt64(Profile.maximumBytes)).contains(bytes), Self.chunkSizes.contains(Int(chunkBytes)),
            let name = String(validating: encoded[Self.fixedBytes...], as: UTF8.self), Self.isFileName(name)
        else { return nil }
        self.init(id: id, name: name, bytes: Int(bytes), chunkBytes: Int(chunkBytes))
    }

    /// Whether a name stands for a file in a directory and for nothing else, and has room for some digits of the id.
    private static func isFileName(_ name: String) -> Bool {
        !name.isEmpty && name.first != "." && !name.contains("/") && !name.contains("\0") && name.utf8.count <= 246
    }
}
