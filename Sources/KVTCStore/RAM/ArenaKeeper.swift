/// Where memory files outlive the process, such as the service manager's descriptor store.
public struct ArenaKeeper: Sendable {
    /// The files that an earlier process left, by name. ``Store/open(_:)`` takes them over.
    public var kept: [(name: String, file: Int32)]
    /// Keeps a file under a new name from now on. Every page that needs new room waits for it.
    public var keep: @Sendable (_ name: String, _ file: Int32) -> Void
    /// Lets a file go that is of no use any more, for the reason given.
    public var forget: @Sendable (_ name: String, _ reason: String) -> Void

    /// A keeper made of its two operations and what it has.
    public init(
        kept: [(name: String, file: Int32)], keep: @escaping @Sendable (String, Int32) -> Void,
        forget: @escaping @Sendable (String, String) -> Void
    ) {
        self.kept = kept
        self.keep = keep
        self.forget = forget
    }
}
