import Foundation

/// What must be true of a simulated store's pages. A page is known by the number its bytes are made from; nil is none.
struct SimulationModel {
    private static let keys = 12
    /// What a running store has.
    private(set) var current = [Int?](repeating: nil, count: keys)
    /// All numbers a page ever had.
    private(set) var history = [[Int]](repeating: [], count: keys)
    /// What a power cut may leave: what the last flush covered, and everything since.
    private var possible = [Set<Int?>](repeating: [nil], count: keys)
    private var pins: Set<Int> = []
    /// Pins that a power cut does not undo.
    private var durablePins: Set<Int> = []
    /// What a page was before a removal that no flush has confirmed, and whether the disk has failed since.
    private var removals = [Set<Int>](repeating: [], count: keys)
    private var unnoted = Set<Int>()
    /// Pages of which a start that could not read everything may have found an older form, or none: later ones may find
    /// any form again until the page is changed and flushed.
    private var uncertain: Set<Int> = []
    /// Those of them that were there when a flush answered.
    private var kept: Set<Int> = []
    /// Those changed since.
    private var changed: Set<Int> = []
    /// The page that an operation is about, and what it may become.
    private var underWay: (n: Int, before: Int?, after: Int?)?

    var pinned: Int { pins.count }
    func isPresent(_ n: Int) -> Bool { current[n] != nil }
    func isPinned(_ n: Int) -> Bool { pins.contains(n) }
    func isDurablyPinned(_ n: Int) -> Bool { durablePins.contains(n) }

    mutating func begin(_ n: Int) { underWay = (n, current[n], current[n]) }

    /// What the operation is to make of the page.
    mutating func expect(_ n: Int, _ number: Int?) {
        underWay = (n, current[n], number)
        if number == nil { kept.remove(n) }
        if let number { history[n].append(number) }
        possible[n].insert(number)
    }

    mutating func stored(_ n: Int, _ number: Int, pinned: Bool) {
        current[n] = number
        changed.insert(n)
        pins.remove(n)
        durablePins.remove(n)
        if pinned { pins.insert(n) }
    }

    mutating func replaced(_ n: Int, _ number: Int, isLoose: Bool) throws {
        guard current[n] != nil || isLoose else {
            throw Simulation.Broken(description: "page \(n) was replaced and is not there")
        }
        current[n] = number
        changed.insert(n)
    }

    mutating func removed(_ n: Int) {
        if let number = current[n] { removals[n].formUnion(possible[n].compactMap(\.self) + [number]) }
        current[n] = nil
        changed.insert(n)
        pins.remove(n)
        durablePins.remove(n)
    }

    mutating func pin(_ n: Int, _ isPinned: Bool) {
        if isPinned { pins.insert(n) } else { pins.remove(n) }
        durablePins.remove(n)
    }

    mutating func flushed(_ n: Int?) {
        // Every flush notes all removals.
        unnoted = []
        removals = removals.map { _ in [] }
        for n in n.map({ [$0] }) ?? Array(0..<Self.keys) {
            possible[n] = [current[n]]
            if changed.contains(n) { uncertain.remove(n) }
            if pins.contains(n), !uncertain.contains(n) { durablePins.insert(n) }
            if current[n] != nil { kept.insert(n) }
        }
    }

    /// Whether a new process may find that.
    func mayBe(_ n: Int, _ number: Int?, isKill: Bool) -> Bool {
        if uncertain.contains(n) {
            return number.map(history[n].contains) ?? !kept.contains(n)
        }
        guard isKill else { return possible[n].contains(number) }
        var before = current[n]
        if let underWay, underWay.n == n {
            // In the middle of a removal an older form of the page may be found on disk.
            if number == underWay.after || underWay.after == nil && possible[n].contains(number) { return true }
            before = underWay.before
        }
        return number == before || before == nil && unnoted.contains(n) && removals[n].contains { $0 == number }
    }

    /// The disk has failed: removals that no flush has confirmed may not outlive the process.
    mutating func diskFailed() { unnoted.formUnion((0..<Self.keys).filter { !removals[$0].isEmpty }) }

    /// A file of the disk tier is gone, or some of it. Whatever was in it may be gone, or what is older be found again, until the next
    /// flush.
    mutating func damaged(_ n: Int, isThere: Bool) {
        if !isThere { current[n] = nil }
        if underWay?.n == n { underWay = nil }
        possible[n].formUnion(history[n] + [nil])
        if current[n] == nil {
            removals[n].formUnion(history[n])
            unnoted.insert(n)
            pins.remove(n)
        }
        // The removal of a page that nobody could read may have been there.
        changed.remove(n)
        kept.remove(n)
        durablePins.remove(n)
    }

    /// A new process found that; what it did not find was dropped, or never there.
    mutating func found(_ n: Int, _ number: Int?, pinned: Bool, isKill: Bool) {
        current[n] = number
        if uncertain.contains(n) { possible[n].formUnion(history[n] + (kept.contains(n) ? [] : [nil])) }
        if isKill { possible[n].insert(number) } else { possible[n] = [number] }
        if pinned { pins.insert(n) } else { pins.remove(n) }
        if underWay?.n == n { underWay = nil }
        uncertain.remove(n)
    }

    /// A new process that could not read everything found that.
    mutating func glimpsed(_ n: Int, _ number: Int?, pinned: Bool) {
        let mustBeThere = uncertain.contains(n) ? kept.contains(n) : current[n] != nil && !possible[n].contains(nil)
        found(n, number, pinned: pinned, isKill: true)
        uncertain.insert(n)
        if mustBeThere { kept.insert(n) } else { kept.remove(n) }
        changed.remove(n)
        durablePins.remove(n)
    }
}
