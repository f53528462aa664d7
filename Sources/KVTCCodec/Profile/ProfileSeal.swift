import CCrypto

/// A checksum of a whole profile file, inside it: the metadata `sha256` is the SHA-256 of the file's bytes with its own 64
/// digits taken as zeros. A profile with a flipped bit has another id, so that no block is decoded wrongly; but without
/// this it would be taken for a new profile and code pages badly.
package enum ProfileSeal {
    package static let key = "sha256"
    /// What stands in place of the digits while they are computed.
    package static let blank = String(repeating: "0", count: 64)

    /// SHA-256 of bytes that come in pieces.
    package struct Sum: ~Copyable {
        private let context = EVP_MD_CTX_new()

        package init() { EVP_DigestInit_ex(context, EVP_sha256(), nil) }

        deinit { EVP_MD_CTX_free(context) }

        package borrowing func add(_ bytes: UnsafeRawBufferPointer) {
            EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
        }

        /// 64 hexadecimal digits.
        package consuming func digits() -> String {
            var digest = [UInt8](repeating: 0, count: 32)
            EVP_DigestFinal_ex(context, &digest, nil)
            return ProfileID(bytes: digest)!.description
        }
    }

    /// Whether the digits in the file are those of its bytes.
    static func isIntact(_ file: UnsafeRawBufferPointer, _ metadata: [String: String]) -> Bool {
        guard let digits = metadata[key], digits.utf8.count == 64, let place = place(of: digits, in: file) else {
            return false
        }
        let sum = Sum()
        sum.add(UnsafeRawBufferPointer(rebasing: file[..<place.lowerBound]))
        Array(blank.utf8).withUnsafeBytes { sum.add($0) }
        sum.add(UnsafeRawBufferPointer(rebasing: file[place.upperBound...]))
        return sum.digits() == digits
    }

    /// Where the digits stand in the header.
    private static func place(of digits: String, in file: UnsafeRawBufferPointer) -> Range<Int>? {
        let pattern = Array("\"\(key)\":\"\(digits)\"".utf8)
        guard file.count >= 8 + pattern.count else { return nil }
        let header = Int(clamping: UInt64(littleEndian: file.loadUnaligned(as: UInt64.self)))
        let end = 8 + min(file.count - 8, header)
        guard end >= 8 + pattern.count else { return nil }
        let start = (8...end - pattern.count).first { file[$0..<$0 + pattern.count].elementsEqual(pattern) }
        return start.map { $0 + pattern.count - 65..<$0 + pattern.count - 1 }
    }
}
