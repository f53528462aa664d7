/// Any bytes as the cluster keeps them, as the article SharedFormat says.
enum SealedBytes {
    private static let magic: UInt32 = 0x4654_564B  // "KVTF"
    private static let version: UInt16 = 1
    private static let boundBytes = 20
    static let overhead = boundBytes + Seal.tagBytes
    private static let nonceOffset = 8
    private static let encrypted: UInt16 = 1

    /// - Parameter nonce: 12 bytes that are never used again under this key, save in tests of the format.
    static func seal(
        _ content: UnsafeRawBufferPointer, key: [UInt8], encrypts: Bool,
        nonce: [UInt8] = Seal.randomBytes(Seal.nonceBytes)
    ) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: overhead + content.count) { bytes, count in
            count = overhead + content.count
            let value = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(bytes)[..<count])
            value.storeBytes(of: magic.littleEndian, toByteOffset: 0, as: UInt32.self)
            value.storeBytes(of: version.littleEndian, toByteOffset: 4, as: UInt16.self)
            value.storeBytes(of: (encrypts ? encrypted : 0).littleEndian, toByteOffset: 6, as: UInt16.self)
            value[nonceOffset..<boundBytes].copyBytes(from: nonce)
            let body = UnsafeMutableRawBufferPointer(rebasing: value[overhead...])
            body.copyMemory(from: content)
            let start = UnsafeRawBufferPointer(rebasing: value[..<boundBytes])
            let tag = Seal.seal(
                key: key, nonce: nonce, bound: encrypts ? [start] : [start, UnsafeRawBufferPointer(body)],
                hidden: encrypts ? body : UnsafeMutableRawBufferPointer(start: nil, count: 0))
            value[boundBytes..<overhead].copyBytes(from: tag)
        }
    }

    /// Opens a value into memory of its content's size, which then has what it should or, with an error, nothing of use.
    static func open(
        _ value: [UInt8], key: [UInt8], into target: UnsafeMutableRawBufferPointer
    ) throws(SharedValue.Fault) {
        guard value.count >= nonceOffset else { throw .truncated }
        let (magic, version, flags) = value.withUnsafeBytes {
            (
                UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)),
                UInt16(littleEndian: $0.loadUnaligned(fromByteOffset: 4, as: UInt16.self)),
                UInt16(littleEndian: $0.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
            )
        }
        guard magic == Self.magic, version > 0 else { throw .corrupt }
        guard version == Self.version else { throw .newer }
        guard value.count == overhead + target.count else { throw .truncated }
        guard flags & ~encrypted == 0 else { throw .corrupt }
        let isIntact = value.withUnsafeBytes { value in
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: value[overhead...]))
            let start = UnsafeRawBufferPointer(rebasing: value[..<boundBytes])
            let encrypts = flags & encrypted != 0
            return Seal.open(
                key: key, nonce: Array(value[nonceOffset..<boundBytes]), tag: Array(value[boundBytes..<overhead]),
                bound: encrypts ? [start] : [start, UnsafeRawBufferPointer(target)],
                hidden: encrypts ? target : UnsafeMutableRawBufferPointer(start: nil, count: 0))
        }
        guard isIntact else { throw .corrupt }
    }
}
