import KVTCModel

/// Which positions a session's policy keeps lossless, given how many tokens the session has.
package struct Protection {
    /// Sink tokens.
    package var sink: Int
    /// The first position inside the window.
    package var windowBegin: Int
    /// Protected ranges, ascending and apart.
    package var ranges: [Range<Int>]

    package init(policy: Policy, tokens: Int) {
        sink = Int(policy.sink)
        windowBegin = max(0, tokens - Int(policy.window))
        ranges = Protection.normalised(policy.protected.map { Int($0.begin)..<Int($0.end) })
    }

    package func contains(_ position: Int) -> Bool {
        position < sink || position >= windowBegin || ranges.contains { $0.contains(position) }
    }

    /// The protected rows of a page; `window` false leaves out what only the window protects.
    package func rows(first: Int, tokens: Int, window: Bool) -> RowSet {
        var rows = RowSet(count: tokens)
        func add(_ range: Range<Int>) {
            rows.insert(range.clamped(to: first..<first + tokens).shifted(by: -first))
        }
        add(0..<sink)
        if window { add(windowBegin..<max(windowBegin, first + tokens)) }
        for range in ranges { add(range) }
        return rows
    }

    package static func normalised(_ ranges: [Range<Int>]) -> [Range<Int>] {
        var result: [Range<Int>] = []
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) where !range.isEmpty {
            if let last = result.last, range.lowerBound <= last.upperBound {
                result[result.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                result.append(range)
            }
        }
        return result
    }
}

extension Range<Int> {
    package func shifted(by distance: Int) -> Range<Int> { lowerBound + distance..<upperBound + distance }
}
