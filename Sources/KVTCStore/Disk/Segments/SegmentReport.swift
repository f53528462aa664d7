/// What is in a segment file.
package struct SegmentReport: Hashable, Sendable {
    /// Intact records of pages, and their payload.
    package var pages = 0
    package var pageBytes = 0
    /// Intact records that remove a page or change its attributes.
    package var tombstones = 0
    package var attributeChanges = 0
    /// Stretches without an intact record between intact ones, and their bytes.
    package var damaged = 0
    package var damagedBytes = 0
    /// Bytes behind the last intact record.
    package var tornBytes = 0
    package var isSealed = false
    package var isIndexed = false
    /// Device calls that failed.
    package var readErrors: UInt64 = 0

    init(_ scanner: SegmentScanner, size: Int) {
        for record in scanner.records {
            switch record.header.kind {
            case .page:
                pages += 1
                pageBytes += record.header.payloadBytes
            case .tombstone, .tenantTombstone: tombstones += 1
            case .attributes: attributeChanges += 1
            case .seal, .index: break
            }
        }
        damaged = scanner.skipped
        damagedBytes = scanner.skippedBytes
        tornBytes = max(0, size - scanner.tail)
        isSealed = scanner.sealed
        isIndexed = scanner.isIndexed
        readErrors = scanner.readErrors
    }
}

extension SegmentScanner {
    /// Scans a segment given as bytes, header included; nil when the header is not intact.
    package static func scan(_ bytes: UnsafeRawBufferPointer, verifiesAll: Bool = false) -> SegmentReport? {
        guard case .valid(let header) = SegmentHeader.parse(bytes) else { return nil }
        return withoutActuallyEscaping(
            { (target: UnsafeMutableRawBufferPointer, offset: Int) throws(DeviceError) -> Int in
                let count = max(0, min(target.count, bytes.count - offset))
                if count > 0 {
                    target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count]))
                }
                return count
            }
        ) { read in
            var scanner = SegmentScanner(
                id: header.id, salt: header.salt, size: bytes.count, verifiesAll: verifiesAll, read: read)
            scanner.scan()
            return SegmentReport(scanner, size: bytes.count)
        }
    }
}
