extension StoreIndex {
    /// Some of a segment is gone: its pages stay if they are in RAM, otherwise they are lost.
    mutating func lose(_ loss: SegmentLoss) {
        switch loss {
        case .vanished(let id):
            loseRecords(in: id, from: 0)
            for entry in pages.entries where entry.shadow == id { entry.shadow = nil }
            forget(segment: id)
        case .cut(let segment, let end):
            loseRecords(in: segment.id, from: end)
            if let durable = unsafeSegments[segment.id] { unsafeSegments[segment.id] = min(durable, end) }
        }
    }

    mutating func repeatChanges(_ records: [SegmentRecord], _ removed: inout Set<StoreKey>) {
        for header in records.lazy.map(\.header) where header.kind == .page {
            guard let number = pages.find(header.key) else {
                if removed.insert(header.key).inserted { tombstones.append(Removal(header.key)) }
                continue
            }
            if pages.attributes(number).hasSameMarks(as: header.attributes) { continue }
            let entry = entry(number)
            (entry.attributesDirty, entry.marksDirty) = (true, true)
        }
    }

    private mutating func loseRecords(in segment: UInt64, from end: Int) {
        for entry in entries(in: segment, expanding: { $0.offset + $0.recordBytes > end }) {
            guard let disk = entry.disk, disk.offset + disk.recordBytes > end else { continue }
            if entry.ram != nil {
                mutate(entry) { $0.disk = nil }
            } else {
                remove(entry)
                counters.lost += 1
            }
        }
    }
}
