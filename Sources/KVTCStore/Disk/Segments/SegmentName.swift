/// The names of segment files.
enum SegmentName {
    /// The name of a segment's file.
    static func of(_ id: UInt64) -> String {
        let digits = String(id, radix: 16)
        return "segment-" + String(repeating: "0", count: 16 - digits.count) + digits + ".log"
    }

    /// The end of the name of a segment that a process could not read in full.
    static let unreadSuffix = ".unread"
    /// The end of the name of one that was set aside.
    static let corruptSuffix = ".corrupt"
    /// What earlier versions renamed a segment to whose sync had failed.
    private static let unsyncedSuffix = ".unsynced"

    /// The id in a segment's file name; nil for other files.
    static func id(_ name: String) -> UInt64? {
        var name = name
        for suffix in [unreadSuffix, unsyncedSuffix] where name.hasSuffix(suffix) { name.removeLast(suffix.count) }
        guard name.count == 28, name.hasPrefix("segment-"), name.hasSuffix(".log") else { return nil }
        return UInt64(name.dropFirst(8).dropLast(4), radix: 16)
    }

    /// The id in the name of a segment that was set aside; nil for other files.
    static func setAsideID(_ name: String) -> UInt64? {
        name.hasSuffix(corruptSuffix) ? id(String(name.dropLast(corruptSuffix.count))) : nil
    }
}
