import CXXHash
import KVTCCalibration
import KVTCCodec
import KVTCModel
import TestSupport

/// Pages of a real model's cache and the profile calibrated on the other contexts, made once a test run.
struct RealPages {
    static let shared: Result<RealPages, any Error> = Result { try RealPages() }
    static let layout = PageLayout(element: .f16, order: .tokenTensorHead)
    static let tokens = 64

    let profile: Profile
    let published: Profile
    /// Page and position of its first token, in `layout`.
    let pages: [(bytes: [UInt8], position: Int)]

    private init() throws {
        let samples = try SampleSet(paths: [testFile("Fixtures/smollm2-layers-11-12.safetensors")])
        func calibrate(_ weighting: Weighting) throws -> Profile {
            try Profile(
                bytes: [UInt8](try Calibrator(samples: samples, weighting: weighting, rank: 400) { _ in }.run()))
        }
        profile = try calibrate(.variance)
        published = try calibrate(.published)
        pages = samples.contexts.map { context in
            let start = context.lowerBound
            return (samples.cached(start..<start + RealPages.tokens), samples.position(of: start))
        }
    }

    func codec(_ kernels: KernelTable = .best, profile: Profile? = nil) throws -> PageCodec {
        try PageCodec(geometry: self.profile.geometry, profile: profile ?? self.profile, kernels: kernels)
    }

    func raw(_ page: (bytes: [UInt8], position: Int)) throws -> [UInt8] {
        try page.bytes.withUnsafeBytes {
            try codec().wrap(
                page: $0, layout: RealPages.layout, tokens: RealPages.tokens, firstPosition: page.position)
        }
    }
}

func encoded(
    _ codec: PageCodec, _ raw: [UInt8], _ mode: Mode, _ quality: Quality, protected rows: [Int] = [],
    tokens: Int = RealPages.tokens
) throws -> [UInt8] {
    var set = RowSet(count: tokens)
    for row in rows { set.insert(row) }
    return try raw.withUnsafeBytes { try codec.encode(block: $0, mode: mode, quality: quality, protected: set) }
}

func header(_ block: [UInt8]) throws -> BlockHeader { try block.withUnsafeBytes { try BlockHeader.parse($0) } }

/// Squared error over squared norm of two pages of f16 elements.
func relativeError(_ a: [UInt8], _ b: [UInt8]) -> Double {
    func floats(_ bytes: [UInt8]) -> [Float] {
        var result = [Float](repeating: 0, count: bytes.count / 2)
        bytes.withUnsafeBytes { convertToFloat(.f16, $0.baseAddress!, &result, result.count) }
        return result
    }
    var (error, energy) = (0.0, 0.0)
    for (x, y) in zip(floats(a), floats(b)) {
        error += Double((x - y) * (x - y))
        energy += Double(x * x)
    }
    return error / energy
}

/// Puts the checksums of what is in a block by now into its header.
func reseal(_ block: inout [UInt8]) {
    block.withUnsafeMutableBytes { bytes in
        let payload = xxh3(bytes.baseAddress! + BlockHeader.size, bytes.count - BlockHeader.size, 0)
        bytes.storeBytes(of: payload.littleEndian, toByteOffset: 88, as: UInt64.self)
        bytes.storeBytes(of: xxh3(bytes.baseAddress!, 96, 0).littleEndian, toByteOffset: 96, as: UInt64.self)
    }
}
