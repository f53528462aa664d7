/// What became of a page offered to the store.
public enum PutOutcome: Hashable, Sendable {
    /// The page is in RAM.
    case stored
    /// The key was there already; the older bytes stay.
    case present
    /// No room could be made without dropping protected or unwritten pages.
    case full
    /// The page can never fit (see ``Store/maxPageBytes``), or it is empty.
    case tooLarge
}

/// What a read found.
public enum ReadOutcome<Value> {
    /// The page was there and intact; the value is what the reader made of it.
    case hit(Value)
    /// No such page, or it has expired, or the disk failed to deliver it this time.
    case miss
    /// The stored bytes did not match their checksum; the page has been removed.
    case corrupt
}

extension ReadOutcome: Sendable where Value: Sendable {}
extension ReadOutcome: Equatable where Value: Equatable {}

/// Where a page can be read from fastest.
public enum Residence: Hashable, Sendable {
    /// Nowhere.
    case absent
    /// In RAM (and perhaps on disk as well).
    case ram
    /// On disk only.
    case disk
}
