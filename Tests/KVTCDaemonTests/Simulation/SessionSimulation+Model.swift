import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions
import KVTCStore

@testable import KVTCDaemon

// What the simulation of sessions remembers, in the plainest way.
extension SessionSimulation {
    /// Of what a worker computes: two identities, of which one says nothing, and two shapes whose pages have as many bytes. All
    /// name their pages by the same keys.
    struct Model: Hashable, CaseIterable {
        var identity: [UInt8]
        var heads: Int
        var order: UInt64

        static let allCases = [
            Model(identity: [], heads: 2, order: 0), Model(identity: [7], heads: 2, order: 1),
            Model(identity: [], heads: 1, order: 2), Model(identity: [7], heads: 1, order: 3),
        ]

        var tensors: [TensorGeometry] {
            Pages.tensors.map { TensorGeometry(layer: $0.layer, role: $0.role, heads: heads, headDim: 16 / heads) }
        }

        private static let namespaces = Dictionary(
            uniqueKeysWithValues: allCases.map { model in
                // The geometries are constants.
                let codec = try! PageCodec(geometry: Geometry(tensors: model.tensors))
                return (model, PageNamespace(identity: model.identity, codec: codec, element: .f16))
            })

        var namespace: PageNamespace { Self.namespaces[self]! }
    }

    struct PageID: Hashable {
        var tenant: UInt32
        var model: Model
        var index: Int
        /// Which of the ways that the conversation went on.
        var branch = 0
        /// Whether it is a tail that is yet to grow.
        var isShort = false

        /// Where it stands in a list that is the same in every run of a seed.
        var order: UInt64 { UInt64(tenant) * 100_000 + model.order * 1000 + number }
        /// What the client names it by, whatever the tenant and the model.
        private var number: UInt64 { UInt64(branch * 100 + index * 10 + (isShort ? 1 : 0)) }
        var key: PageKey { Pages.key(number) }
        var storeKey: StoreKey { model.namespace.key(key.vector, tenant: tenant) }
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
        static let badRow = 3
    }

    struct LiveSession {
        var id: UInt32
        var caller: Caller
        var model: Model
        var policy: Policy
        var branch = 0
        /// By position.
        var pages: [PageID] = []
        /// The last lease taken, what it covers and when it ends.
        var lease: (id: UInt64, pages: Set<PageID>, end: UInt64)?

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
        /// When its time may be over, at the earliest; nil: never.
        var end: UInt64?
        /// The earliest that it ever was: what a restart may find.
        var earliestEnd: UInt64?
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

        mutating func setEnd(_ time: UInt64?) {
            end = time
            if let time { earliestEnd = min(earliestEnd ?? time, time) }
        }
    }
}
