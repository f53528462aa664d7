import KVTCStore
import Synchronization

/// Pages that the daemons of one test share.
final class MemoryTier: SharedTier {
    struct State {
        var pages: [StoreKey: (page: SharedPage, bytes: [UInt8])] = [:]
        var offered: Set<StoreKey> = []
        var asked: [StoreKey] = []
        var fetched: [StoreKey] = []
        var isFaulty = false
    }

    let state = Mutex(State())

    func ask(_ keys: [StoreKey]) -> [SharedPage?] {
        state.withLock { state in
            state.asked += keys
            return keys.map { state.pages[$0]?.page }
        }
    }

    func fetch(_ keys: [StoreKey], _ done: @escaping @Sendable (Int, SharedOutcome) -> Void) {
        // The last one first: nothing is promised of the order.
        for (index, key) in keys.enumerated().reversed() {
            let outcome = state.withLock { state -> SharedOutcome in
                state.fetched.append(key)
                guard !state.isFaulty else { return .fault }
                return state.pages[key].map { .hit($0.page, $0.bytes) } ?? .absent
            }
            done(index, outcome)
        }
    }

    func offer(_ keys: [StoreKey]) { state.withLock { $0.offered.formUnion(keys) } }

    func remove(_ keys: [StoreKey]) { state.withLock { state in for key in keys { state.pages[key] = nil } } }

    /// Writes what was offered, from the store that has it.
    func write(from store: Store) {
        for key in state.withLock({ $0.offered }) {
            guard case .hit(let bytes) = store.read(key, { [UInt8]($0) }), let attributes = store.attributes(key) else {
                continue
            }
            let page = SharedPage(attributes: attributes, length: bytes.count)
            state.withLock { $0.pages[key] = (page, bytes) }
        }
    }
}
