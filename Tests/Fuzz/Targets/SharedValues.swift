import KVTCShared

/// A page's value as somebody may leave it in a cluster. It must not verify; made right again under the key, it is what that head and block are
/// sealed to.
enum SharedValues {
    private static let key = [UInt8](repeating: 5, count: 32)

    static func run(_ input: UnsafeRawBufferPointer) {
        precondition((try? SharedValue.open([UInt8](input), key: key)) == nil, "bytes that no secret has made")
        let value = repaired([UInt8](input))
        guard let (head, block) = try? SharedValue.open(value, key: key) else { return }
        let again = block.withUnsafeBytes {
            SharedValue.seal($0, head, key: key, encrypts: value[6] & 1 != 0, nonce: Array(value[8..<20]))
        }
        precondition(again == value, "another value of the same page")
    }

    /// Puts length, reserved bytes and seals right, by the offsets of SharedFormat.
    private static func repaired(_ input: [UInt8]) -> [UInt8] {
        var value = input
        guard value.count >= 96 else { return value }
        let encrypts = value[6] & 1 != 0
        value[19] &= 0xFE
        for at in 20..<24 { value[at] = 0 }
        for at in 0..<8 { value[24 + at] = UInt8(truncatingIfNeeded: (value.count - 96) >> (8 * at)) }
        value.withUnsafeMutableBytes { value in
            var nonce = Array(value[8..<20])
            func seal(_ tag: Int, bound: Range<Int>, _ hidden: Range<Int>) {
                let parts = encrypts ? [bound] : [bound, hidden]
                let sum = Seal.seal(
                    key: key, nonce: nonce, bound: parts.map { UnsafeRawBufferPointer(rebasing: value[$0]) },
                    hidden: UnsafeMutableRawBufferPointer(rebasing: value[encrypts ? hidden : 0..<0]))
                value[tag..<tag + 16].copyBytes(from: sum)
            }
            seal(64, bound: 0..<24, 24..<64)
            nonce[11] |= 1
            seal(80, bound: 64..<80, 96..<value.count)
        }
        return value
    }
}
