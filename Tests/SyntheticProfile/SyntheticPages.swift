import KVTCCalibration
import KVTCCodec
import KVTCModel

/// A cache of correlated rows and a profile calibrated on its first contexts, made once a test run: what it takes to
/// code pages as a model's are coded.
package struct SyntheticPages {
    package static let shared: Result<SyntheticPages, any Error> = Result { try SyntheticPages() }
    /// Tokens of a page.
    package static let tokens = 64
    /// How its pages lie.
    package static let layout = PageLayout(element: .f16, order: .tokenTensorHead)

    /// What the calibration gave.
    package let profile: Profile
    /// The same as a file's bytes.
    package let file: [UInt8]
    private let cache: SyntheticCache

    private init() throws {
        cache = try SyntheticCache(layers: 4, heads: 2, headDim: 16, tokens: 6 * 2048, seed: 11)
        file = [UInt8](try Calibrator(samples: cache, weighting: .variance, rank: 96) { _ in }.run())
        profile = try Profile(bytes: file)
    }

    /// Bytes of one token of a page, in half precision.
    package var rowBytes: Int { cache.geometry.rowElements * 2 }

    /// Codes and decodes pages of the cache's geometry.
    package var codec: PageCodec {
        get throws { try PageCodec(geometry: cache.geometry, profile: profile) }
    }

    /// So many pages, scaled, from a page of the last context on.
    package func pages(_ count: Int, scale: Float = 1) -> [[UInt8]] {
        (0..<count).map { page in
            let start = 5 * 2048 + page * SyntheticPages.tokens
            let width = cache.geometry.rowElements
            var values = [Float](repeating: 0, count: SyntheticPages.tokens * width)
            values.withUnsafeMutableBufferPointer {
                cache.rows(start..<start + SyntheticPages.tokens, into: $0.baseAddress!)
            }
            return values.flatMap { value -> [UInt8] in
                let bits = Float16(value * scale).bitPattern
                return [UInt8(bits & 255), UInt8(bits >> 8)]
            }
        }
    }

    /// Squared error over squared norm of a page's row.
    package func error(_ page: [UInt8], _ other: [UInt8], row: Int) -> Double {
        var (error, energy) = (0.0, 0.0)
        for at in stride(from: row * rowBytes, to: (row + 1) * rowBytes, by: 2) {
            func value(_ bytes: [UInt8]) -> Double {
                Double(Float16(bitPattern: UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8))
            }
            error += (value(page) - value(other)) * (value(page) - value(other))
            energy += value(page) * value(page)
        }
        return error / energy
    }
}
