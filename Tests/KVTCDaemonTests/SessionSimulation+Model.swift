import KVTCCodec
import KVTCProtocol
import KVTCStore

@testable import KVTCDaemon

// What the simulation of sessions remembers, in the plainest way.
extension SessionSimulation {
    /// Of all sessions: they are of one shape.
    // The geometry is a constant.
    static let namespace = PageNamespace(
        identity: [], codec: try! PageCodec(geometry: Pages.geometry.codecGeometry(grouping: .rolesApart)),
        element: .f16)

    struct PageID: Hashable {
        var tenant: UInt32
        var conversation: Int
        var index: Int
        /// Which of the ways that the conversation went on.
        var branch = 0
        /// Whether it is a tail that is yet to grow.
        var isShort = false

        /// Where it stands in a list that is the same in every run of a seed.
        var order: UInt64 { UInt64(tenant) * 100_000 + number }
        private var number: UInt64 { UInt64(conversation * 1000 + branch * 100 + index * 10 + (isShort ? 1 : 0)) }
        var key: PageKey { Pages.key(number) }
        var storeKey: StoreKey { SessionSimulation.namespace.key(key, tenant: tenant) }
        var tokens: Int { isShort ? 7 : SessionSimulation.tokens }
        var first: Int { index * SessionSimulation.tokens }
        var end: Int { first + tokens }
        var bytes: [UInt8] { Pages.random(tokens: tokens, seed: order) }
        /// The same with NaN in one row.
        var badBytes: [UInt8] {
            var page = bytes
            (page[96], page[97]) = (0, 0x7E)
            return page
        }
    }

    struct LiveSession {
        var id: UInt32
        var caller: Caller
        var conversation: Int
        var policy: WirePolicy
        var branch = 0
        /// By position.
        var pages: [PageID] = []

        var tokens: Int { pages.last?.end ?? 0 }

        /// Whether the policy keeps a position exact wherever the session's end is.
        func keeps(_ position: Int) -> Bool {
            policy.mode == .lossless || position < Int(policy.sink)
                || policy.protected.contains { Int($0.begin) <= position && position < Int($0.end) }
        }

        func protects(_ position: Int) -> Bool { keeps(position) || position >= tokens - Int(policy.window) }

        /// Gives the pages that leave.
        mutating func place(_ page: PageID) -> [PageID] {
            guard !pages.contains(page) else { return [] }
            let overlaps = pages.contains { $0.first < page.end && page.first < $0.end }
            let left = overlaps ? cut(at: page.first) : []
            pages.append(page)
            pages.sort { $0.first < $1.first }
            return left
        }

        mutating func cut(at position: Int) -> [PageID] {
            let left = pages.filter { $0.end > position }
            pages.removeAll { $0.end > position }
            return left
        }
    }

    struct Known {
        /// Acknowledged by this process, or found by it, and not dropped.
        var isThere = false
        var isFlushed = false
        /// Whether its time may be over.
        var mayExpire = false
        /// Whether it holds NaN; nil where a restart may have brought either back.
        var isBad: Bool? = false
        /// Rows that were protected without a break since the page was pushed.
        var exact: [Bool]
        /// Rows that sessions which are over protected at their end, or that one which has gone back keeps exact there.
        var retained: [Bool]
        /// Those of them that stay so when the process is killed: it had time to note that.
        var lasting: [Bool]

        init(_ page: PageID) {
            exact = [Bool](repeating: false, count: page.tokens)
            (retained, lasting) = (exact, exact)
        }
    }
}
