import Testing

@testable import KVTCStore

/// Kinds of records that this release does not know, under good checksums: another release wrote them, or something odd.
@Suite struct UnknownValueTests {
    private static let header = RecordHeader(
        kind: .page, key: StoreKey(tenant: 1, words: SIMD4(1, 2, 3, 4)), attributes: PageAttributes(), payloadBytes: 64,
        payloadHash: 5)
    private static let unknown: [UInt8] = (0...255).filter { RecordKind(rawValue: $0) == nil }

    @Test func recordsOfUnknownKindsAreRefused() {
        func parsed(kind: UInt8) -> RecordHeader? {
            var bytes = [UInt8](repeating: 0, count: RecordHeader.bytes)
            return bytes.withUnsafeMutableBytes { target in
                Self.header.write(to: target, segment: 7, offset: 64, salt: 9)
                target[4] = kind
                let covered = UnsafeRawBufferPointer(rebasing: target[..<120])
                target.storeBytes(of: checksum(covered, seed: 9).littleEndian, toByteOffset: 120, as: UInt64.self)
                return RecordHeader.parse(UnsafeRawBufferPointer(target), segment: 7, offset: 64, salt: 9)
            }
        }
        #expect(parsed(kind: RecordKind.page.rawValue) == Self.header)
        #expect(Self.unknown.count == 250)
        for kind in Self.unknown { #expect(parsed(kind: kind) == nil, "kind \(kind)") }
    }

    @Test func indexesWithUnknownKindsAreRefused() {
        var index = SegmentIndex()
        index.append(Self.header, at: SegmentHeader.bytes)
        func parsed(kind: UInt8) -> [SegmentRecord]? {
            let bytes = [kind] + index.bytes.dropFirst()
            return bytes.withUnsafeBytes { SegmentIndex.parse($0, end: 1 << 20) }
        }
        #expect(parsed(kind: RecordKind.page.rawValue)?.map(\.header) == [Self.header])
        // An index tells of no seal and of no index.
        for kind in Self.unknown + [RecordKind.seal.rawValue, RecordKind.index.rawValue] {
            #expect(parsed(kind: kind) == nil, "kind \(kind)")
        }
    }
}
