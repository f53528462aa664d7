import CKernels

/// The shared symbol tables: one for each quarter octave of σ/Δ from 2^−4 to 2^12.
///
/// A component's symbol distribution depends on its scale over the step alone, so these tables serve every component at
/// every rate and no block carries side information.
public final class EntropyTables: @unchecked Sendable {
    // Justified: `tables` is written once in `init` and only read afterwards.
    /// Number of tables.
    public static let classes = 64
    /// Symbols a table: codes −15…15 and an escape.
    public static let symbols = 32
    private let tables: UnsafeMutablePointer<kv_table>

    /// - Parameter frequencies: `classes × symbols`, each table's sum 4096 and every entry at least 1.
    public init(frequencies: [UInt16]) throws(CodecError) {
        guard frequencies.count == EntropyTables.classes * EntropyTables.symbols, frequencies.allSatisfy({ $0 > 0 })
        else {
            throw .corrupt("entropy tables need 64 × 32 frequencies above 0")
        }
        tables = .allocate(capacity: EntropyTables.classes)
        tables.initialize(repeating: kv_table(), count: EntropyTables.classes)
        for index in 0..<EntropyTables.classes {
            let made = frequencies.withUnsafeBufferPointer {
                kv_table_make($0.baseAddress! + index * EntropyTables.symbols, tables + index)
            }
            guard made == 0 else { throw .corrupt("entropy table \(index) does not sum to 4096") }
        }
    }

    deinit { tables.deallocate() }

    func table(_ index: Int) -> UnsafePointer<kv_table> { UnsafePointer(tables + index) }

    /// Table of a component: both arguments in 1/64 octave.
    package static func classOf(level: Int, stepIndex: Int) -> Int {
        max(0, min(classes - 1, (level - stepIndex + 256) >> 4))
    }

    /// Raw low bits of each code in a class, so that what the table codes stays within about four standard deviations.
    package static func shift(class index: Int) -> Int { max(0, (index >> 2) - 5) }

    /// 4096ths in proportion to the counts, none zero (largest remainders get what rounding leaves).
    package static func normalise(_ counts: [UInt64]) -> [UInt16] {
        let total = Double(counts.reduce(0, +))
        guard total > 0 else { return [UInt16](repeating: 4096 / UInt16(counts.count), count: counts.count) }
        var frequencies = counts.map { max(1, Int(Double($0) / total * 4096)) }
        var excess = frequencies.reduce(0, +) - 4096
        while excess != 0 {
            let largest = frequencies.indices.max { frequencies[$0] < frequencies[$1] }!
            // Take from the largest entry, at most half of it, or give it all that is left.
            let change = excess > 0 ? min(excess, frequencies[largest] / 2) : excess
            frequencies[largest] -= change
            excess -= change
        }
        return frequencies.map(UInt16.init)
    }
}
