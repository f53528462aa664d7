/// Entries by key. They hold their keys, so that nothing else needs to.
struct EntryTable {
    /// In no order, without gaps.
    private(set) var values: ContiguousArray<PageEntry> = []
    private var table = KeyTable()

    var keys: some Sequence<StoreKey> { values.lazy.map(\.key) }
    var count: Int { values.count }

    subscript(key: StoreKey) -> PageEntry? {
        table.find(table.hash(key)) { values[Int($0)].key == key }.map { values[Int($0)] }
    }

    /// Whether this very entry is there.
    func contains(_ entry: PageEntry) -> Bool {
        let number = Int(entry.number)
        return number < values.count && values[number] === entry
    }

    /// Enters an entry whose key is not there.
    mutating func insert(_ entry: PageEntry) {
        entry.number = UInt32(values.count)
        do {
            let (values, hash) = (values, table.hash)
            table.insert(entry.number, hash(entry.key)) { hash(values[Int($0)].key) }
        }
        values.append(entry)
    }

    /// Takes out an entry that is there.
    mutating func remove(_ entry: PageEntry) {
        // The references taken here end before the array changes, which would be copied otherwise.
        do {
            let (values, hash) = (values, table.hash)
            table.remove(entry.number, hash(entry.key)) { hash(values[Int($0)].key) }
            if let last = values.last, last !== entry { table.renumber(last.number, to: entry.number, hash(last.key)) }
        }
        let last = values.removeLast()
        guard last !== entry else { return }
        last.number = entry.number
        values[Int(entry.number)] = last
    }
}
