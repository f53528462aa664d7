/// Whether the disk tier works.
public enum StoreState: Hashable, Sendable {
    /// All is well.
    case ready
    /// Writing to disk fails (the text says how); pages stay in RAM and nothing is dropped until it works again.
    case degraded(String)
}
