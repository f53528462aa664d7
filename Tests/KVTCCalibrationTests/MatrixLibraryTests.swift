import COpenBLAS
import Foundation
import Testing

@testable import KVTCCalibration

@Suite struct MatrixLibraryTests {
    @Test func theKernelsAreThoseAskedForOrTheBestForTheProcessor() throws {
        try MatrixLibrary.load()
        // Chosen before main, unless whoever started this chose.
        if let best = openblas_best_kernels().map({ String(cString: $0) }) {
            let wanted = try #require(ProcessInfo.processInfo.environment["OPENBLAS_CORETYPE"])
            #expect(wanted != best || MatrixLibrary.kernels == best)
        }
    }

    /// In a process of its own: products take one thread meanwhile, and products of so many threads as before differ from those.
    @Test func speedIsMeasured() async {
        await #expect(processExitsWith: .success) {
            try MatrixLibrary.load()
            let speed = MatrixLibrary.measure()
            print(speed.text)
            #expect(speed.gflops > 0 && speed.peakGflops > 0 && speed.kernels == MatrixLibrary.kernels)
        }
    }

    @Test func productsFarBelowThePeakAreWeak() {
        #expect(MatrixLibrary.Speed(kernels: "Prescott", gflops: 27, peakGflops: 188).isWeak)
        #expect(!MatrixLibrary.Speed(kernels: "SkylakeX", gflops: 134, peakGflops: 188).isWeak)
    }

    @Test func whatACalibrationTakesIsSaidAndTooFewTokensWarnedOf() throws {
        let speed = MatrixLibrary.Speed(kernels: "any", gflops: 100, peakGflops: 150)
        func forecast(layers: Int, tokens: Int, groups: Int = 1) throws -> CalibrationForecast {
            let samples = try SyntheticCache(layers: layers, heads: 2, headDim: 32, tokens: tokens, seed: 1)
            return try Calibrator(samples: samples, weighting: .variance, layerGroups: groups) { _ in }
                .forecast(speed: speed, threads: 2)
        }
        let (small, long, wide) = (
            try forecast(layers: 8, tokens: 4096), try forecast(layers: 8, tokens: 16_384),
            try forecast(layers: 32, tokens: 4096)
        )
        let parted = try forecast(layers: 32, tokens: 4096, groups: 2)
        #expect(parted.seconds < 0.7 * wide.seconds && parted.memory < wide.memory)
        #expect(small.tokens == 4096 && small.elements == 1024 && wide.elements == 4096)
        #expect(small.seconds > 0 && long.seconds > small.seconds && wide.seconds > 10 * small.seconds)
        #expect(small.memory > 4 * 1024 * 1024 * 3 && wide.memory > 4 * 4096 * 4096 * 3 && wide.memory < 2 << 30)
        #expect(small.warning == nil && long.warning == nil)
        let warning = try #require(wide.warning)
        for part in ["4096 tokens", "4096 elements", "2.5 times the distortion", "8192 or more"] {
            #expect(warning.contains(part))
        }
    }
}
