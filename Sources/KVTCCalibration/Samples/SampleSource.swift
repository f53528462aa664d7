import KVTCCodec
import KVTCModel

/// Rows of a model's cache, however many: they are asked for in pieces, several times, and never held.
public protocol SampleSource {
    /// The tensors of every row.
    var geometry: Geometry { get }
    /// Name of the model, for people.
    var model: String { get }
    /// Digest of the model's weights, in hexadecimal; nil where the samples do not say.
    var weightsDigest: String? { get }
    /// The rank that the rows are of; nil for a whole model.
    var rank: ModelRank? { get }
    /// Number of rows.
    var tokens: Int { get }
    /// Tokens that were read one after another: a context is held out of training as a whole, or not.
    var contexts: [Range<Int>] { get }
    /// Fills `target` with [range][rowElements] values, rotation undone.
    func rows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>)
    /// Where a token comes from, for messages.
    func place(of token: Int) -> String
}

extension SampleSource {
    /// Rows of a batch: about 128 MB.
    var batch: Int { max(128, min(SampleSplit.batch, (32 << 20) / geometry.rowElements)) }

    /// Calls `body` with a batch after another of the rows; it may write to them. `runs` are the tokens
    /// in a batch, in its order.
    func stream(
        _ ranges: [Range<Int>],
        _ body: (_ rows: UnsafeMutablePointer<Float>, _ count: Int, _ runs: [Range<Int>]) throws -> Void
    ) rethrows {
        let width = geometry.rowElements
        let limit = batch
        let buffer = Matrix(rows: limit, columns: width)
        var runs: [Range<Int>] = []
        var count = 0
        for range in ranges {
            var start = range.lowerBound
            while start < range.upperBound {
                let run = start..<min(start + limit - count, range.upperBound)
                rows(run, into: buffer.values + count * width)
                runs.append(run)
                count += run.count
                start = run.upperBound
                guard count == limit else { continue }
                try body(buffer.values, count, runs)
                (runs, count) = ([], 0)
            }
        }
        if count > 0 { try body(buffer.values, count, runs) }
    }

    /// What to say of a batch in which something is not finite.
    func explain(_ rows: UnsafePointer<Float>, _ runs: [Range<Int>]) -> CalibrationError {
        let width = geometry.rowElements
        for (row, token) in runs.joined().enumerated() {
            for (tensor, offset) in zip(geometry.tensors, geometry.offsets) {
                let values = UnsafeBufferPointer(start: rows + row * width + offset, count: tensor.width)
                guard values.contains(where: { !$0.isFinite }) else { continue }
                return CalibrationError(
                    "\(place(of: token)) holds NaN or infinities in the \(tensor.role) of layer \(tensor.layer); leave that "
                        + "token out, or capture with wider numbers")
            }
        }
        return CalibrationError("values near \(place(of: runs[0].lowerBound)) are too large to be summed")
    }
}

/// What a calibration learns from and what it is judged on.
struct SampleSplit {
    /// Most rows of a batch.
    static let batch = 1024
    private(set) var training: [Range<Int>]
    private(set) var heldOut: [Range<Int>]

    /// Every tenth context is held out; of fewer than five, the last tenth of each.
    init(_ contexts: [Range<Int>]) {
        if contexts.count >= 5 {
            let held = contexts.indices.filter { $0 % 10 == min(9, contexts.count - 1) }
            training = contexts.indices.filter { !held.contains($0) }.map { contexts[$0] }
            heldOut = held.map { contexts[$0] }
        } else {
            let cuts = contexts.map { $0.upperBound - max($0.count / 10, 1) }
            training = zip(contexts, cuts).map { $0.lowerBound..<$1 }
            heldOut = zip(contexts, cuts).map { $1..<$0.upperBound }
        }
        training.removeAll(where: \.isEmpty)
        heldOut.removeAll(where: \.isEmpty)
    }

    static func count(_ ranges: [Range<Int>]) -> Int { ranges.reduce(0) { $0 + $1.count } }

    /// About `limit` tokens, in runs of 64 spread evenly over the ranges; all of them where they are no more.
    static func thinned(_ ranges: [Range<Int>], to limit: Int) -> [Range<Int>] {
        let total = count(ranges)
        guard total > limit, limit > 0 else { return ranges }
        let runs = ranges.flatMap { range in
            stride(from: range.lowerBound, to: range.upperBound, by: 64).map { $0..<min($0 + 64, range.upperBound) }
        }
        let wanted = max(1, limit * runs.count / total)
        return (0..<wanted).map { runs[$0 * runs.count / wanted] }
    }
}
