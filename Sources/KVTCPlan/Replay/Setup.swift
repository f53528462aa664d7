/// A size of the daemon's tiers, and how it codes.
public struct Setup: Hashable, Sendable {
    /// Bytes of `ram.budget`.
    public var ram: Int
    /// Bytes of `disk.budget`; 0 for none.
    public var disk: Int
    /// How pages are kept.
    public var coding: Coding

    /// A setup.
    public init(ram: Int, disk: Int = 0, coding: Coding = .raw) {
        (self.ram, self.disk, self.coding) = (ram, disk, coding)
    }
}

/// What of a model and a policy decides about sizes.
public struct PageShape: Hashable, Sendable {
    /// Bytes of one token in the cache, all layers.
    public var tokenBytes: Int
    /// Tokens at a prompt's beginning that stay exact.
    public var sink: Int
    /// Tokens at its end that stay exact.
    public var window: Int

    /// A shape; sinks and window are those of a session that says nothing.
    public init(tokenBytes: Int, sink: Int = 4, window: Int = 128) {
        (self.tokenBytes, self.sink, self.window) = (tokenBytes, sink, window)
    }

    /// The tokens from `first` on, up to `end`, of a prompt of `tokens` that stay exact.
    func exact(_ first: Int, _ end: Int, of tokens: Int) -> Int {
        let sinks = max(0, min(end, sink) - first)
        let begin = max(first, tokens - window, first + sinks)
        return sinks + max(0, end - begin)
    }
}

extension Trace {
    /// Bytes that block `index` of a request takes once it is coded.
    func storedBytes(_ index: Int, of request: Request, _ shape: PageShape, _ coding: Coding) -> Double {
        let first = index * blockTokens
        let tokens = tokens(index, of: request)
        let exact = shape.exact(first, first + tokens, of: request.inputTokens)
        return coding.rows(tokens, exact: exact) * Double(shape.tokenBytes)
    }
}
