import COpenBLAS
import Glibc

/// The library that multiplies matrices for calibration, and for what benchmarks compare with.
///
/// Of its kernels the fastest that the processor can run is chosen before it is loaded, unless `OPENBLAS_CORETYPE` names some.
public enum MatrixLibrary {
    /// Share of the processor's peak below which a product is no baseline to be proud of beating: good kernels reach 0.7 to 0.9,
    /// those of another generation half of that or less.
    public static let leastShare = 0.5

    /// Makes sure that it is there.
    public static func load() throws {
        guard openblas_load() != nil else {
            throw CalibrationError(
                "OpenBLAS can't be loaded (\(String(cString: openblas_failure()))): install it, on Debian with "
                    + "'apt install libopenblas0'")
        }
        guard isRight else {
            throw CalibrationError(
                "OpenBLAS's \(kernels) kernels multiply wrongly on this processor: set OPENBLAS_CORETYPE to others, such as "
                    + "Haswell or Nehalem, or install a newer library")
        }
    }

    /// Whether products are what they should be. Libraries older than a processor have been wrong on it.
    private static let isRight: Bool = {
        // Odd sizes meet the kernels' edges. Small whole numbers are exact in any order.
        let (rows, columns, depth) = (35, 67, 131)
        let (left, right) = (Matrix(rows: rows, columns: depth), Matrix(rows: depth, columns: columns))
        for index in 0..<rows * depth { left.values[index] = Float(index * 7 % 17) - 8 }
        for index in 0..<depth * columns { right.values[index] = Float(index * 5 % 13) - 6 }
        let (product, square) = (Matrix(rows: rows, columns: columns), Matrix(rows: rows, columns: rows))
        cblas_sgemm(
            CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(rows), Int32(columns), Int32(depth), 1, left.values,
            Int32(depth), right.values, Int32(columns), 0, product.values, Int32(columns))
        cblas_ssyrk(
            CblasRowMajor, CblasLower, CblasNoTrans, Int32(rows), Int32(depth), 1, left.values, Int32(depth), 0,
            square.values, Int32(rows))
        return (0..<rows).allSatisfy { row in
            let own = left.values + row * depth
            return (0..<columns).allSatisfy { column in
                product.values[row * columns + column]
                    == (0..<depth).reduce(0) { $0 + own[$1] * right.values[$1 * columns + column] }
            }
                && (0...row).allSatisfy { other in
                    square.values[row * rows + other]
                        == (0..<depth).reduce(0) { $0 + own[$1] * left.values[other * depth + $1] }
                }
        }
    }()

    /// What its kernels are called, such as "SkylakeX".
    public static var kernels: String { String(cString: openblas_get_corename()) }

    /// Which kernels run and how fast.
    public struct Speed: Encodable, Sendable {
        /// OpenBLAS's name of them.
        public var kernels: String
        /// 10⁹ operations a second of one thread: a square product, and multiply-adds in registers, which nothing exceeds.
        public var gflops, peakGflops: Double
        /// One as a share of the other.
        public var share: Double { gflops / peakGflops }
        /// Whether other kernels would be much faster.
        public var isWeak: Bool { share < MatrixLibrary.leastShare }

        /// In a line, for people.
        public var text: String {
            "matrix products by OpenBLAS's \(kernels) kernels: \(Int(gflops.rounded())) of \(Int(peakGflops.rounded())) "
                + "GFLOP/s that a thread of this processor can do (\(Int((100 * share).rounded())) %)"
        }
    }

    /// How many threads multiply: one a processor, unless `OPENBLAS_NUM_THREADS` says otherwise.
    public static var threads: Int { Int(openblas_get_num_threads()) }

    /// Measures both in turns, by the thread's own processor time, and takes the best of each: 0.3 s or so.
    public static func measure() -> Speed {
        let threads = threads
        openblas_set_num_threads(1)
        defer { openblas_set_num_threads(Int32(threads)) }
        let size = 1024
        let (left, right, product) = (
            Matrix(rows: size, columns: size), Matrix(rows: size, columns: size), Matrix(rows: size, columns: size)
        )
        for index in 0..<size * size {
            left.values[index] = Float(index % 17) - 8
            right.values[index] = Float(index % 13) - 6
        }
        var (best, peak) = (0.0, 0.0)
        for _ in 0..<5 {
            best = max(
                best,
                rate {
                    cblas_sgemm(
                        CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(size), Int32(size), Int32(size), 1,
                        left.values, Int32(size), right.values, Int32(size), 0, product.values, Int32(size))
                    return 2 * Double(size * size * size)
                })
            peak = max(peak, rate { openblas_peak_loop(500_000) })
        }
        return Speed(kernels: kernels, gflops: best / 1e9, peakGflops: peak / 1e9)
    }

    private static func rate(_ operations: () -> Double) -> Double {
        func now() -> Double {
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        let start = now()
        let count = operations()
        return count / max(now() - start, 1e-9)
    }
}
