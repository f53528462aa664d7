import COpenBLAS
import FoundationEssentials
import KVTCCodec

/// A dense float matrix outside Swift's arrays, so that BLAS gets stable pointers and 500 MB is zeroed once.
final class Matrix {
    let rows: Int
    let columns: Int
    let values: UnsafeMutablePointer<Float>

    /// Zeroed.
    init(rows: Int, columns: Int) {
        self.rows = rows
        self.columns = columns
        values = .allocate(capacity: max(1, rows * columns))
        values.initialize(repeating: 0, count: rows * columns)
    }

    deinit { values.deallocate() }
}

/// Leading eigenvectors of a symmetric matrix.
enum Eigen {
    /// By subspace iteration (Halko, Martinsson & Tropp, arXiv 0909.4061), or LAPACK's ssyevd where the matrix is small.
    /// - Parameter matrix: lower triangle of a symmetric matrix; its values are lost.
    /// - Returns: eigenvalues, descending, and the vectors as rows.
    static func leading(
        _ rank: Int, of matrix: Matrix, seed: UInt64, step: (Double) throws -> Void
    ) throws -> (values: [Float], vectors: Matrix) {
        let size = matrix.rows
        let sketch = min(size, rank + max(32, rank / 16))
        if size <= 1024 || sketch * 4 > size * 3 {
            let result = descending(try symmetric(matrix), matrix, rank)
            try step(1)
            return result
        }
        var subspace = Matrix(rows: sketch, columns: size)
        var random = SplitMix(state: seed)
        for index in 0..<sketch * size { subspace.values[index] = random.uniform() }
        let iterations = 3
        for iteration in 0..<iterations {
            subspace = multiply(matrix, subspace)
            try orthonormalise(subspace)
            try step(Double(iteration + 1) / Double(iterations + 1))
        }
        // Rayleigh–Ritz: the small problem Q C Qᵀ in the subspace found.
        let image = multiply(matrix, subspace)
        let small = Matrix(rows: sketch, columns: sketch)
        cblas_sgemm(
            CblasColMajor, CblasTrans, CblasNoTrans, Int32(sketch), Int32(sketch), Int32(size), 1, subspace.values,
            Int32(size), image.values, Int32(size), 0, small.values, Int32(sketch))
        let (values, turn) = descending(try symmetric(small), small, rank)
        let vectors = Matrix(rows: rank, columns: size)
        cblas_sgemm(
            CblasColMajor, CblasNoTrans, CblasNoTrans, Int32(size), Int32(rank), Int32(sketch), 1, subspace.values,
            Int32(size), turn.values, Int32(sketch), 0, vectors.values, Int32(size))
        try step(1)
        return (values, vectors)
    }

    private static func multiply(_ matrix: Matrix, _ subspace: Matrix) -> Matrix {
        let result = Matrix(rows: subspace.rows, columns: subspace.columns)
        let size = Int32(matrix.rows)
        cblas_ssymm(
            CblasColMajor, CblasLeft, CblasLower, size, Int32(subspace.rows), 1, matrix.values, size, subspace.values,
            size,
            0, result.values, size)
        return result
    }

    /// Householder QR of the rows (columns of the column-major view).
    private static func orthonormalise(_ subspace: Matrix) throws {
        var (m, n, info) = (Int32(subspace.columns), Int32(subspace.rows), Int32(0))
        var tau = [Float](repeating: 0, count: subspace.rows)
        var length = n * 64
        var work = [Float](repeating: 0, count: Int(length))
        sgeqrf_(&m, &n, subspace.values, &m, &tau, &work, &length, &info)
        guard info == 0 else { throw CalibrationError("LAPACK sgeqrf failed (\(info))") }
        sorgqr_(&m, &n, &n, subspace.values, &m, tau, &work, &length, &info)
        guard info == 0 else { throw CalibrationError("LAPACK sorgqr failed (\(info))") }
    }

    /// Eigenvalues ascending; the matrix becomes its eigenvectors, one a row of the row-major view.
    static func symmetric(_ matrix: Matrix) throws -> [Float] {
        var (n, info) = (Int32(matrix.rows), Int32(0))
        var values = [Float](repeating: 0, count: matrix.rows)
        var (length, integerLength) = (Int32(-1), Int32(-1))
        var (work, integerWork) = ([Float(0)], [Int32(0)])
        ssyevd_("V", "L", &n, matrix.values, &n, &values, &work, &length, &integerWork, &integerLength, &info)
        // The float that carries the size back may be rounded down.
        length = Int32(Double(work[0]) * 1.0001) + 64
        integerLength = integerWork[0]
        work = [Float](repeating: 0, count: Int(length))
        integerWork = [Int32](repeating: 0, count: Int(integerLength))
        ssyevd_("V", "L", &n, matrix.values, &n, &values, &work, &length, &integerWork, &integerLength, &info)
        guard info == 0 else { throw CalibrationError("LAPACK ssyevd failed (\(info)); are there NaN in the samples?") }
        return values
    }

    private static func descending(_ values: [Float], _ vectors: Matrix, _ rank: Int) -> ([Float], Matrix) {
        let size = vectors.columns
        let result = Matrix(rows: rank, columns: size)
        for index in 0..<rank {
            (result.values + index * size).update(from: vectors.values + (size - 1 - index) * size, count: size)
        }
        return ((0..<rank).map { values[size - 1 - $0] }, result)
    }
}

/// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): a profile, and what a benchmark works on, must come out the same on every run.
package struct SplitMix: RandomNumberGenerator {
    package var state: UInt64

    package init(state: UInt64) { self.state = state }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// −1 to 1.
    mutating func uniform() -> Float { Float(Int64(bitPattern: next()) >> 40) / Float(1 << 23) }
}
