import Foundation
import FuzzTargets
import TestSupport
import Testing

/// The fuzz targets in short form: what once crashed, the seeds, and mutations of the seeds. A broken promise traps.
@Suite(.serialized) struct FuzzTests {
    private static func files(_ kind: String, _ target: FuzzTarget) -> [[UInt8]] {
        let directory = testFile("Fuzz/\(kind)/\(target.rawValue)")
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return names.sorted().compactMap { name in
            FileManager.default.contents(atPath: "\(directory)/\(name)").map { [UInt8]($0) }
        }
    }

    @Test(arguments: FuzzTarget.allCases) func crashersStayFixed(target: FuzzTarget) {
        for input in FuzzTests.files("Crashers", target) { input.withUnsafeBytes(target.run) }
    }

    @Test(arguments: FuzzTarget.allCases) func mutatedSeedsBreakNothing(target: FuzzTarget) {
        let seeds = FuzzTests.files("Corpus", target)
        #expect(!seeds.isEmpty)
        for input in seeds { input.withUnsafeBytes(target.run) }
        let seed = UInt64.random(in: 0 ... .max)
        print("fuzz seed \(seed) of \(target.rawValue)")
        var generator = SeededGenerator(seed: seed)
        // Each segment is a file that is synced.
        for round in 0..<(target == .segments ? 100 : 600) {
            var input = seeds[round % seeds.count]
            for _ in 0..<Int.random(in: 1...4, using: &generator) { FuzzTests.mutate(&input, &generator) }
            input.withUnsafeBytes(target.run)
        }
    }

    /// Every place near the start where a number may be, with every number that overflows or nearly does.
    @Test(arguments: FuzzTarget.allCases) func extremesBreakNothing(target: FuzzTarget) {
        for seed in FuzzTests.files("Corpus", target) {
            for width in [2, 4, 8] {
                for at in stride(from: 0, to: min(seed.count, 256), by: width) {
                    for value in FuzzTests.extremes {
                        var input = seed
                        FuzzTests.write(value, width, &input, at)
                        input.withUnsafeBytes(target.run)
                    }
                }
            }
        }
    }

    private static let extremes: [UInt64] = [.max, 1 << 63, 1 << 32, 1 << 31, 0, 0x7FFF_FFFF]

    private static func write(_ value: UInt64, _ width: Int, _ input: inout [UInt8], _ at: Int) {
        for byte in 0..<width where at + byte < input.count {
            input[at + byte] = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte))
        }
    }

    private static func mutate(_ input: inout [UInt8], _ generator: inout SeededGenerator) {
        guard !input.isEmpty else { return input.append(.random(in: 0...255, using: &generator)) }
        // Most of what is read as a number lies near the start.
        let range = Bool.random(using: &generator) ? input.count : min(input.count, 256)
        let at = Int.random(in: 0..<range, using: &generator)
        switch Int.random(in: 0..<6, using: &generator) {
        case 0: input[at] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        case 1: input[at] = .random(in: 0...255, using: &generator)
        case 2: input.removeLast(Int.random(in: 0...min(64, input.count), using: &generator))
        case 3: input.append(contentsOf: input.prefix(at))
        default:
            let value = extremes.randomElement(using: &generator)!
            write(value, [2, 4, 8].randomElement(using: &generator)!, &input, at)
        }
    }
}
