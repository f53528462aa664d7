/// Numbers of 8 bits for the arenas that have pages with a compact entry only.
struct ArenaNumbers {
    private var arenas: [RAMArena?] = []

    subscript(_ number: UInt8) -> RAMArena { arenas[Int(number)]! }

    /// The arena's number, a new one where it has none; nil when there are too many.
    mutating func enter(_ arena: RAMArena) -> UInt8? {
        if let number = arenas.firstIndex(where: { $0 === arena }) { return UInt8(number) }
        let number = arenas.firstIndex { $0 == nil } ?? arenas.count
        guard let result = UInt8(exactly: number) else { return nil }
        if number == arenas.count { arenas.append(nil) }
        arenas[number] = arena
        return result
    }

    /// Forgets an arena that has no pages left.
    mutating func forget(_ arena: RAMArena) {
        if let number = arenas.firstIndex(where: { $0 === arena }) { arenas[number] = nil }
    }
}
