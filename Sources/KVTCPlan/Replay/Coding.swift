/// How pages are kept, as far as their size goes.
public enum Coding: Hashable, Sendable {
    /// As they come.
    case raw
    /// Every row bit for bit, so many times smaller.
    case lossless(Double)
    /// So many times smaller but for sinks and window, which stay as large as they are.
    case transform(Double)

    /// What a ratio stands for: above ``mostLossless`` pages can't be kept bit for bit.
    public init(ratio: Double) {
        self = ratio <= 1 ? .raw : ratio <= Self.mostLossless ? .lossless(ratio) : .transform(ratio)
    }

    /// More than lossless coding of a KV cache reaches.
    public static let mostLossless = 2.0

    /// Raw over stored bytes of what is coded.
    public var ratio: Double {
        switch self {
        case .raw: 1
        case .lossless(let ratio), .transform(let ratio): ratio
        }
    }

    /// As in the daemon's policies.
    public var name: String {
        switch self {
        case .raw: "raw"
        case .lossless: "lossless"
        case .transform: "transform"
        }
    }

    /// What rows take, in rows that are not coded.
    /// - Parameter exact: those that sinks and window keep bit for bit.
    func rows(_ rows: Int, exact: Int) -> Double {
        guard case .transform = self else { return Double(rows) / ratio }
        return Double(exact) + Double(rows - exact) / ratio
    }
}
