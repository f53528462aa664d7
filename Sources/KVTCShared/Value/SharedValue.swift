import KVTCStore

/// A page as the cluster keeps it, byte by byte as the article SharedFormat says.
package enum SharedValue {
    static let magic: UInt32 = 0x5354_564B  // "KVTS"
    static let version: UInt16 = 1
    /// Bytes that a lookup reads.
    static let headBytes = boundBytes + attributeBytes + Seal.tagBytes
    /// Bytes before the block.
    static let overhead = headBytes + Seal.tagBytes
    /// Bytes that are bound to the head and readable in every case.
    private static let boundBytes = 24
    private static let attributeBytes = 40
    private static let nonceOffset = 8
    private static let encrypted: UInt16 = 1

    /// Why bytes are no value of a page.
    package enum Fault: String, Error, CaseIterable {
        /// Of a later release, which another machine has.
        case newer
        /// Cut off, too long, or no value at all.
        case truncated
        /// Changed, or sealed for another page, tenant or fleet.
        case corrupt
    }

    /// The value of a block.
    /// - Parameter nonce: 12 bytes that are never used again under this key, save in tests of the format.
    package static func seal(
        _ block: UnsafeRawBufferPointer, _ head: PageHead, key: [UInt8], encrypts: Bool,
        nonce: [UInt8] = Seal.randomBytes(Seal.nonceBytes)
    ) -> [UInt8] {
        precondition(block.count == head.length)
        return [UInt8](unsafeUninitializedCapacity: overhead + block.count) { bytes, count in
            count = overhead + block.count
            let value = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(bytes)[..<count])
            value.storeBytes(of: magic.littleEndian, toByteOffset: 0, as: UInt32.self)
            value.storeBytes(of: version.littleEndian, toByteOffset: 4, as: UInt16.self)
            value.storeBytes(of: (encrypts ? encrypted : 0).littleEndian, toByteOffset: 6, as: UInt16.self)
            value[nonceOffset..<nonceOffset + Seal.nonceBytes].copyBytes(from: nonces(nonce).head)
            value.storeBytes(of: 0, toByteOffset: nonceOffset + Seal.nonceBytes, as: UInt32.self)
            write(head, to: value[boundBytes..<boundBytes + attributeBytes])
            let tag = Seal.seal(
                key: key, nonce: nonces(nonce).head, bound: boundHead(value, encrypts),
                hidden: hiddenHead(value, encrypts))
            value[headBytes - Seal.tagBytes..<headBytes].copyBytes(from: tag)
            value[overhead...].copyBytes(from: block)
            let bodyTag = Seal.seal(
                key: key, nonce: nonces(nonce).body, bound: boundBody(value, encrypts),
                hidden: hiddenBody(value, encrypts))
            value[headBytes..<overhead].copyBytes(from: bodyTag)
        }
    }

    /// Reads a value's first ``headBytes``, or more of it.
    static func head(of value: [UInt8], key: [UInt8]) throws(Fault) -> PageHead {
        var head = Array(value.prefix(headBytes))
        return try openHead(&head, key: key).head
    }

    /// Reads a whole value.
    package static func open(_ value: [UInt8], key: [UInt8]) throws(Fault) -> (head: PageHead, block: [UInt8]) {
        var start = Array(value.prefix(headBytes))
        let (head, encrypts, nonce) = try openHead(&start, key: key)
        guard value.count - overhead == head.length else { throw .truncated }
        let tag = Array(value[headBytes..<overhead])
        var isIntact = false
        let block = [UInt8](unsafeUninitializedCapacity: head.length) { bytes, count in
            let block = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(bytes)[..<head.length])
            value.withUnsafeBytes { value in
                block.copyMemory(from: UnsafeRawBufferPointer(rebasing: value[overhead...]))
                let headTag = UnsafeRawBufferPointer(rebasing: value[headBytes - Seal.tagBytes..<headBytes])
                isIntact = Seal.open(
                    key: key, nonce: nonces(nonce).body, tag: tag,
                    bound: encrypts ? [headTag] : [headTag, UnsafeRawBufferPointer(block)],
                    hidden: encrypts ? block : nothing)
            }
            count = head.length
        }
        guard isIntact else { throw .corrupt }
        return (head, block)
    }

    private static func openHead(
        _ bytes: inout [UInt8], key: [UInt8]
    ) throws(Fault) -> (head: PageHead, encrypts: Bool, nonce: [UInt8]) {
        guard bytes.count >= 6 else { throw .truncated }
        let (magic, version) = bytes.withUnsafeBytes {
            (
                UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 0, as: UInt32.self)),
                UInt16(littleEndian: $0.loadUnaligned(fromByteOffset: 4, as: UInt16.self))
            )
        }
        guard magic == Self.magic, version > 0 else { throw .corrupt }
        guard version == Self.version else { throw .newer }
        guard bytes.count == headBytes else { throw .truncated }
        let opened = bytes.withUnsafeMutableBytes { bytes -> (PageHead, Bool, [UInt8])? in
            let flags = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
            let encrypts = flags & encrypted != 0
            let nonce = Array(bytes[nonceOffset..<nonceOffset + Seal.nonceBytes])
            // The body's nonce is the other one of the pair.
            guard flags & ~encrypted == 0, nonce == nonces(nonce).head else { return nil }
            let isIntact = Seal.open(
                key: key, nonce: nonce, tag: Array(bytes[headBytes - Seal.tagBytes..<headBytes]),
                bound: boundHead(bytes, encrypts),
                hidden: hiddenHead(bytes, encrypts))
            guard isIntact else { return nil }
            return read(bytes[boundBytes..<boundBytes + attributeBytes]).map { ($0, encrypts, nonce) }
        }
        guard let opened else { throw .corrupt }
        return opened
    }

    /// Of the two nonces of a value, which differ in their last bit.
    private static func nonces(_ nonce: [UInt8]) -> (head: [UInt8], body: [UInt8]) {
        let start = nonce.dropLast()
        return (start + [nonce.last! & ~1], start + [nonce.last! | 1])
    }

    // MARK: Which bytes are hidden, and which only bound

    private static var nothing: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(start: nil, count: 0) }

    private static func boundHead(
        _ value: UnsafeMutableRawBufferPointer, _ encrypts: Bool
    ) -> [UnsafeRawBufferPointer] {
        [UnsafeRawBufferPointer(rebasing: value[..<(encrypts ? boundBytes : boundBytes + attributeBytes)])]
    }

    private static func hiddenHead(
        _ value: UnsafeMutableRawBufferPointer, _ encrypts: Bool
    ) -> UnsafeMutableRawBufferPointer {
        encrypts ? UnsafeMutableRawBufferPointer(rebasing: value[boundBytes..<boundBytes + attributeBytes]) : nothing
    }

    private static func boundBody(
        _ value: UnsafeMutableRawBufferPointer, _ encrypts: Bool
    ) -> [UnsafeRawBufferPointer] {
        let headTag = UnsafeRawBufferPointer(rebasing: value[headBytes - Seal.tagBytes..<headBytes])
        return encrypts ? [headTag] : [headTag, UnsafeRawBufferPointer(rebasing: value[overhead...])]
    }

    private static func hiddenBody(
        _ value: UnsafeMutableRawBufferPointer, _ encrypts: Bool
    ) -> UnsafeMutableRawBufferPointer {
        encrypts ? UnsafeMutableRawBufferPointer(rebasing: value[overhead...]) : nothing
    }

    // MARK: Attributes

    private static func write(_ head: PageHead, to slice: Slice<UnsafeMutableRawBufferPointer>) {
        let target = UnsafeMutableRawBufferPointer(rebasing: slice)
        let attributes = head.attributes
        func store<Value: FixedWidthInteger>(_ value: Value, _ offset: Int) {
            target.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
        }
        store(UInt64(head.length), 0)
        store(attributes.rawBytes, 8)
        store(attributes.firstPosition, 16)
        store(attributes.tokens, 20)
        store(attributes.ttl, 24)
        target[28] = head.mode
        target[29] = Marks(attributes).rawValue
        target[30] = attributes.priority
        target[31] = 0
        store(head.distortion.bitPattern, 32)
        store(head.exactRows, 36)
    }

    /// Nil for what this version does not write.
    private static func read(_ slice: Slice<UnsafeMutableRawBufferPointer>) -> PageHead? {
        let source = UnsafeRawBufferPointer(UnsafeMutableRawBufferPointer(rebasing: slice))
        func load<Value: FixedWidthInteger>(_ offset: Int, _: Value.Type) -> Value {
            Value(littleEndian: source.loadUnaligned(fromByteOffset: offset, as: Value.self))
        }
        guard let length = Int(exactly: load(0, UInt64.self)), source[31] == 0 else { return nil }
        let marks = Marks(rawValue: source[29])
        guard Marks.all.isSuperset(of: marks) else { return nil }
        let attributes = PageAttributes(
            priority: source[30], ttl: load(24, UInt32.self), firstPosition: load(16, UInt32.self),
            tokens: load(20, UInt32.self), rawBytes: load(8, UInt64.self), coded: true, near: marks.contains(.near),
            nonFinite: marks.contains(.nonFinite), lossy: marks.contains(.lossy))
        return PageHead(
            attributes: attributes, length: length, mode: source[28],
            distortion: Float(bitPattern: load(32, UInt32.self)), exactRows: load(36, UInt32.self))
    }

    private struct Marks: OptionSet {
        var rawValue: UInt8
        static let lossy = Marks(rawValue: 1)
        static let near = Marks(rawValue: 2)
        static let nonFinite = Marks(rawValue: 4)
        static let all: Marks = [.lossy, .near, .nonFinite]

        init(rawValue: UInt8) { self.rawValue = rawValue }

        init(_ attributes: PageAttributes) {
            self = []
            if attributes.lossy { insert(.lossy) }
            if attributes.near { insert(.near) }
            if attributes.nonFinite { insert(.nonFinite) }
        }
    }
}
