extension StoreIndex {
    /// The record that says of earlier records what one that lies there says; nil where later ones say it already.
    mutating func repeated(
        _ header: RecordHeader, at position: LogPosition, isUnread: Bool
    ) -> RecordHeader? {
        if let removal = Removal(header, at: position) { return isUnread ? nil : removal.header }
        let number = pages.find(header.key)
        let disk = number.flatMap { pages.location($0) }
        let place = disk.map { LogPosition(segment: $0.segment.id, offset: $0.offset) }
        switch header.kind {
        case .page:
            if let place, place > position { return nil }
            var removal = Removal(header.key)
            removal.before = position
            return removal.header
        case .attributes:
            guard let number, let place, place < position, place.segment != position.segment else { return nil }
            let entry = entry(number)
            defer { entry.noteLogged(entry.attributes) }
            return RecordHeader(
                kind: .attributes, key: header.key, attributes: entry.attributes, payloadBytes: 0, payloadHash: 0)
        case .seal, .index, .tombstone, .tenantTombstone: return nil
        }
    }

    /// A page's record has been copied; ignored when the page is gone or has other bytes by now.
    mutating func move(_ key: StoreKey, from old: DiskLocation, to location: DiskLocation) {
        guard let entry = entry(key, at: old) else { return }
        mutate(entry) { entry in
            entry.disk = location
            entry.writtenUse = entry.lastUse
        }
        counters.reinserted += 1
    }
}
