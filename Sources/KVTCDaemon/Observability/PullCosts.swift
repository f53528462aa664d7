import KVTCCodec

/// Where pulled pages come from, as far as that says how long it takes.
enum PageSource: Int, CaseIterable, Sendable {
    /// RAM, as they were pushed.
    case raw
    /// RAM, coded.
    case coded
    /// The disk, raw or coded.
    case disk
    /// Other machines.
    case shared
}

/// What the pages of one pull took, by where they came from.
struct PullEffort: Sendable {
    private var tokens = PageSource.allCases.map { _ in 0 }
    private var busy = PageSource.allCases.map { _ in UInt64(0) }

    var allTokens: Int { tokens.reduce(0, +) }

    /// - Parameter nanoseconds: of one thread.
    mutating func add(_ source: PageSource, tokens: Int, nanoseconds: UInt64) {
        self.tokens[source.rawValue] += tokens
        busy[source.rawValue] += nanoseconds
    }

    /// Nanoseconds a token of each source in a pull that took so many from request to reply. Threads worked side by side: each source
    /// gets as much of the time as it had of their work.
    func costs(elapsed: UInt64) -> [(source: PageSource, nanoseconds: Double)] {
        let all = busy.reduce(0, +)
        return PageSource.allCases.compactMap { source in
            let (tokens, busy) = (tokens[source.rawValue], busy[source.rawValue])
            guard tokens > 0, all > 0 else { return nil }
            return (source, Double(elapsed) * Double(busy) / Double(all) / Double(tokens))
        }
    }
}

/// What pages of a shape cost to bring back: medians over the latest pulls, so that a client that does not read for a while, or a
/// disk that wakes up, is not taken for the rule.
struct PullCosts: Sendable {
    /// What it depends on, besides the machine.
    struct Shape: Hashable {
        var profile: ProfileID?
        var tokenBytes: Int
    }

    /// Pulls of fewer tokens say more about requests than about pages.
    static let fewestTokens = 256
    /// Pulls that count.
    static let span = 31

    private var samples = PageSource.allCases.map { _ in [Double]() }
    private(set) var pulls = PageSource.allCases.map { _ in UInt64(0) }

    mutating func add(_ effort: PullEffort, elapsed: UInt64) {
        for (source, nanoseconds) in effort.costs(elapsed: elapsed) {
            if samples[source.rawValue].count == Self.span { samples[source.rawValue].removeFirst() }
            samples[source.rawValue].append(nanoseconds)
            pulls[source.rawValue] += 1
        }
    }

    /// Nanoseconds a token; nil without a pull.
    func nanoseconds(_ source: PageSource) -> Double? {
        let sorted = samples[source.rawValue].sorted()
        return sorted.isEmpty ? nil : sorted[sorted.count / 2]
    }
}
