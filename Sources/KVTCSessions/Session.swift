import KVTCModel
import struct KVTCStore.StoreKey

/// One page as a session sees it.
package struct SessionPage: Hashable {
    package var key: StoreKey
    package var first: Int
    package var tokens: Int
    package var end: Int { first + tokens }

    package init(key: StoreKey, first: Int, tokens: Int) { (self.key, self.first, self.tokens) = (key, first, tokens) }
}

/// One token stream.
package struct Session {
    package let id: UInt32
    package let tenant: UInt32
    package let connection: UInt64
    package let name: String
    package let context: CodingContext
    package let namespace: PageNamespace
    package let pageTokens: Int
    package let tokenBytes: Int
    package var policy: Policy
    /// By position, none over another.
    package private(set) var pages: [SessionPage] = []
    /// The position after the last page's last token: where the window ends.
    package private(set) var tokens = 0
    /// Pages before this index have left the window.
    package var released = 0
    /// Nanoseconds on the monotonic clock.
    package var lastUse: UInt64 = 0
    /// Whether there was no request for so long that the window may be coded near-losslessly, which the policy allows.
    package var isIdle = false
    /// The place of the last LOOKUP in the store's order of uses, and when that was.
    package var lookup: (place: UInt64, time: UInt64)?
    /// When all of its pages were last noted as used, where there are many.
    package var wholeUse: UInt64 = 0
    /// What came of its pages that were coded while it lived.
    package var tally = CodingTally()
    /// How they compare with what the profile expects.
    package var drift = Drift()

    package init(
        id: UInt32, tenant: UInt32, connection: UInt64, name: String, context: CodingContext,
        namespace: PageNamespace, pageTokens: Int, tokenBytes: Int, policy: Policy, lastUse: UInt64 = 0
    ) {
        self.id = id
        self.tenant = tenant
        self.connection = connection
        self.name = name
        self.context = context
        self.namespace = namespace
        self.pageTokens = pageTokens
        self.tokenBytes = tokenBytes
        self.policy = policy
        self.lastUse = lastUse
    }

    /// The first position inside the window.
    package var windowBegin: Int { max(0, tokens - Int(policy.window)) }

    /// All but the list of pages: a second reference to that would make the next push copy it.
    package var withoutPages: Session {
        var bare = self
        bare.pages = []
        return bare
    }

    /// Puts a page in its place. One that lies over others begins another continuation of the stream there: those leave, and
    /// all behind them. One in a gap fills it. Gives the pages that left.
    mutating func place(_ page: SessionPage) -> ArraySlice<SessionPage> {
        let at = firstIndex(endingBehind: page.first)
        guard at == pages.count || pages[at] != page else { return [] }
        let left = at < pages.count && pages[at].first < page.end ? cut(at: page.first) : []
        pages.insert(page, at: at)
        if at < released { released += 1 }
        settle()
        return left
    }

    /// Takes out the pages that end behind a position; gives them.
    mutating func cut(at position: Int) -> ArraySlice<SessionPage> {
        let at = firstIndex(endingBehind: position)
        guard at < pages.count else { return [] }
        // A copy: the list must stay its only owner's.
        let left = Array(pages[at...])
        pages.removeSubrange(at...)
        settle()
        return left[...]
    }

    /// Takes out pages that are gone from the store.
    mutating func remove(_ keys: Set<StoreKey>) {
        pages.removeAll { keys.contains($0.key) }
        settle()
    }

    /// After a change of the list: the end is where the last page ends, and the window may reach back over pages that had left it.
    private mutating func settle() {
        tokens = pages.last?.end ?? 0
        released = min(released, firstIndex(endingBehind: windowBegin))
    }

    private func firstIndex(endingBehind position: Int) -> Int {
        var (low, high) = (0, pages.count)
        while low < high {
            let middle = (low + high) / 2
            if pages[middle].end > position { high = middle } else { low = middle + 1 }
        }
        return low
    }

    package var protection: Protection { Protection(policy: policy, tokens: tokens) }

    /// What is promised once these pages are in their places.
    package func promise(with pages: [SessionPage]) -> Promise {
        var session = self
        for page in pages { _ = session.place(page) }
        return session.promise
    }

    package var promise: Promise { Promise(choice: CodingChoice(policy), protection: protection) }
}
