import Foundation
import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// Kills the process after every single store to shared memory, and in the middle of each: whatever was acknowledged is
/// found by the next process, whatever was removed is not.
@Suite struct KillSimulationTests {
    /// Memory and disk at one moment, with what had been acknowledged by then.
    private struct Moment {
        var memory: [(name: String, bytes: [UInt8])]
        var device: MemoryDevice
        var step: Int
    }

    /// Seeds of the bytes that are right for a key; nil among them: it may be absent.
    private typealias Model = [Int: Set<Int?>]

    private func size(_ seed: Int) -> Int { 40 + seed * 37 % 900 }

    private func open(_ device: MemoryDevice, _ keeper: TestKeeper, step: (@Sendable () -> Void)? = nil) throws -> Store
    {
        var configuration = StoreConfiguration.memory(device, ram: 6 << 10, disk: 1 << 20, segment: 16 << 10)
        configuration.arenaBytes = 2 << 10
        configuration.ramStep = step
        return try Store.open(configuration.kept(by: keeper))
    }

    @Test(arguments: 1...12 as ClosedRange<UInt64>) func afterEveryStore(seed: UInt64) throws {
        print("kill seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let (keeper, device) = (TestKeeper(), MemoryDevice())
        let moments = Mutex<[Moment]>([])
        let step = Mutex(0)
        let store = try open(device, keeper) {
            let moment = Moment(memory: keeper.contents, device: device.afterKill(), step: step.withLock { $0 })
            moments.withLock { $0.append(moment) }
        }
        /// What is allowed while operation number n runs.
        var models: [Model] = []
        var present: [Int: Int] = [:]
        for number in 0..<60 {
            step.withLock { $0 = number }
            let n = Int.random(in: 0..<10, using: &generator)
            let before = present
            switch Int.random(in: 0..<10, using: &generator) {
            case 0...4:
                models.append(allowed(before, n, [before[n], number]))
                if store.put(key(n), bytes: page(number, bytes: size(number)), attributes: PageAttributes()) == .stored
                {
                    present[n] = number
                }
            case 5, 6:
                models.append(allowed(before, n, before[n] == nil ? [nil] : [before[n], number]))
                if store.replace(key(n), bytes: page(number, bytes: size(number)), attributes: PageAttributes()) {
                    present[n] = number
                }
            case 7:
                models.append(allowed(before, n, [before[n], nil]))
                store.remove(key(n))
                present[n] = nil
            case 8:
                models.append(allowed(before, n, [before[n]]))
                store.update(key(n), pinned: Bool.random(using: &generator), priority: 7)
            default:
                models.append(allowed(before, n, [before[n]]))
                _ = try? store.flush([key(n)])
            }
        }
        let all = moments.withLock { $0 }
        #expect(all.count > 40)
        for (index, moment) in all.enumerated() {
            try check(moment.memory, moment.device, models[moment.step])
            // Between two stores nothing but the later one's words may differ; any part of them may have got through.
            guard index > 0, moment.memory.map(\.name) == all[index - 1].memory.map(\.name) else { continue }
            let torn = zip(all[index - 1].memory, moment.memory).map { before, after in
                (name: after.name, bytes: mix(before.bytes, after.bytes, &generator))
            }
            try check(torn, moment.device, models[moment.step])
        }
    }

    private func allowed(_ present: [Int: Int], _ n: Int, _ seeds: Set<Int?>) -> Model {
        var model: Model = present.mapValues { [$0] }
        model[n] = seeds
        return model
    }

    /// Each word as it was before or after.
    private func mix(_ before: [UInt8], _ after: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var result = before
        for word in stride(from: 0, to: after.count, by: 8)
        where before[word..<word + 8] != after[word..<word + 8] && Bool.random(using: &generator) {
            result.replaceSubrange(word..<word + 8, with: after[word..<word + 8])
        }
        return result
    }

    private func check(_ memory: [(name: String, bytes: [UInt8])], _ device: MemoryDevice, _ model: Model) throws {
        let store = try open(device.afterKill(), TestKeeper(memory))
        for n in 0..<10 {
            let seeds = model[n] ?? [nil]
            switch store.read(key(n), { PageBytes(array: Array($0)) }) {
            case .hit(let bytes):
                #expect(seeds.contains { $0.map { bytes == page($0, bytes: size($0)) } ?? false }, "page \(n)")
            case .miss: #expect(seeds.contains(nil), "page \(n) is lost")
            case .corrupt: Issue.record("page \(n) is corrupt")
            }
        }
    }
}
