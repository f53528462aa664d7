import CKernels
import Synchronization

/// What coding a page needs of memory and keeps for the next page: memory from the kernel costs more than some of the sums that
/// are done in it.
final class CoderMemory: @unchecked Sendable {
    // Justified: the pool lends it to one call at a time.

    /// Of one basis.
    final class OfBasis: @unchecked Sendable {
        // Justified: it belongs to one memory.
        /// Coefficients: [component][row].
        var values = Scratch<Float>()
        var terms = Scratch<kv_term>()
        var quads = Scratch<Int8>()
        var sums = Scratch<Int32>()
    }

    /// A stretch of rows on its way to where it stays.
    var stretch = Scratch<UInt8>()
    /// Weighted, centred rows.
    var weighted = Scratch<Float>()
    /// The same as integers.
    var integers = Scratch<Int16>()
    /// Least errors by size, group after group.
    var least = Scratch<Float>()
    private(set) var bases: [OfBasis] = []

    func reserve(bases count: Int) {
        while bases.count < count { bases.append(OfBasis()) }
    }
}

/// Memory that waits for a page to be coded.
final class CoderMemoryPool: Sendable {
    private static let limit = 64
    private let idle = Mutex<[CoderMemory]>([])

    /// Lends memory for the time of a call.
    func with<R, E: Error>(_ body: (CoderMemory) throws(E) -> R) throws(E) -> R {
        let memory = idle.withLock { $0.popLast() } ?? CoderMemory()
        defer { idle.withLock { if $0.count < CoderMemoryPool.limit { $0.append(memory) } } }
        return try body(memory)
    }
}
