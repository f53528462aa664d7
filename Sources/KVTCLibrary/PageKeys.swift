import CCrypto
import CKVTC

/// Names pages as the wire protocol's article says, and as every other client of kvtcd does.
enum PageKeys {
    /// The key of a full page: a hash over profile, key of the page before, and tokens.
    static func next(after before: [UInt8], _ tokens: UnsafeBufferPointer<Int32>, profile: [UInt8]) -> [UInt8] {
        var content = Array("kvtc-page-v1".utf8) + profile + before
        withUnsafeBytes(of: UInt32(tokens.count).littleEndian) { content += $0 }
        for token in tokens { withUnsafeBytes(of: token.littleEndian) { content += $0 } }
        return [UInt8](unsafeUninitializedCapacity: 32) { digest, count in
            SHA256(content, content.count, digest.baseAddress)
            count = 32
        }
    }
}
