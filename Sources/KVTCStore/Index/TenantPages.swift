/// One tenant's pages in RAM in the order in which they leave it, and what all of its pages take up.
struct TenantPages {
    static let protectedList = 256

    /// One list per priority, then one of the protected pages; only pages in RAM are linked.
    var lists = [PageList](repeating: PageList(), count: protectedList + 1)
    var usage = TenantUsage()

    /// The next page to leave RAM: lowest priority first, then least recently used.
    func next(protected: Bool) -> (list: Int, number: UInt32)? {
        for list in protected ? Self.protectedList..<Self.protectedList + 1 : 0..<Self.protectedList {
            if lists[list].oldest != PageList.none { return (list, lists[list].oldest) }
        }
        return nil
    }
}
