import ArgumentParser
import Foundation
import Glibc
import KVTCCalibration
import KVTCStore
import KVTCSystem

struct StoreBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store",
        abstract: "What the store keeps of a trace of conversations, and what finding a page costs.",
        discussion: """
            Hit ratios are those of a seeded, synthetic trace: conversations chosen by Zipf's law (exponent 1) that ask for \
            all their pages and then grow by 1 to 6. Against exact LRU and the offline optimum with the same room.
            """)

    @OptionGroup var options: Options

    @Option(help: "Pages of the largest index; each takes 704 bytes of disk in a temporary directory.")
    var largest: Int?

    func run() throws {
        var report = Report()
        // First: memory that the others let go would be taken without growing.
        try weighEntries(&report)
        try replay(&report)
        try findPages(&report)
        if !options.quick { try readDisk(&report) }
        try options.finish(report)
    }

    // MARK: - Hit ratio

    private func replay(_ report: inout Report) throws {
        let trace = Trace(sessions: 2000, requests: options.quick ? 5000 : 40_000, seed: 1)
        let capacity = trace.pages / 5
        let pageBytes = 4096
        let store = try Store.open(StoreConfiguration(ramBudget: capacity * pageBytes, arenaBytes: 256 << 20))
        let page = noisePage(bytes: pageBytes, seed: 3)
        var (lru, optimum) = (
            ExactLRU(capacity: capacity, pages: trace.pages), OfflineOptimum(capacity: capacity, trace: trace)
        )
        let ofLRU = trace.hitRatio { lru.access($0) }
        let best = trace.hitRatio { optimum.access($0) }
        let start = MonotonicClock.nanoseconds
        let ours = try trace.hitRatio { number in
            if case .hit = store.read(Self.key(number), { $0.count }) { return true }
            guard store.put(Self.key(number), bytes: page, attributes: PageAttributes()) == .stored else {
                throw Mismatch("the store took no page")
            }
            return false
        }
        let time = Double(MonotonicClock.nanoseconds - start)
        report.add("store.accesses", Double(trace.accesses.count), "of \(trace.pages) pages, room for \(capacity)")
        report.add("store.hit_ratio", ours, "")
        report.add("store.hit_ratio_lru", ofLRU, "exact LRU")
        report.add("store.hit_ratio_optimum", best, "knows the future")
        report.add("store.access", time / Double(trace.accesses.count) / 1000, "µs, pages of \(pageBytes) bytes")
        report.add(ratio: "hits_vs_lru", ours / ofLRU, target: "≥ 1")
        report.add(ratio: "hits_vs_optimum", ours / best)
    }

    // MARK: - Index

    /// What a page in RAM takes beside its bytes and its 128 bytes of the arena's directory.
    private func weighEntries(_ report: inout Report) throws {
        let pages = 500_000
        let store = try Store.open(StoreConfiguration(ramBudget: 512 << 20, arenaBytes: 512 << 20))
        let page = noisePage(bytes: 512, seed: 12)
        let before = try Self.privateBytes()
        for number in 0..<pages {
            guard store.put(Self.key(number), bytes: page, attributes: PageAttributes()) == .stored else {
                throw Mismatch("the store took no page")
            }
        }
        let grown = Double(try Self.privateBytes() - before)
        report.add(
            "store.ram_index_bytes", grown / Double(pages), "bytes of memory a page in RAM, \(pages) pages; aim ≤ 96")
    }

    /// Memory of this process that is in no file, as arenas are.
    private static func privateBytes() throws -> Int {
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let line = status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
        guard let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw Mismatch("/proc/self/status tells no RssAnon")
        }
        return kibibytes << 10
    }

    private func findPages(_ report: inout Report) throws {
        let top = largest ?? (options.quick ? 100_000 : 1_000_000)
        let directory = try TemporaryDirectory()
        let store = try Store.open(
            StoreConfiguration(
                directory: directory.file("pages"), ramBudget: 16 << 20, diskBudget: max(1 << 30, top * 1024),
                segmentBytes: 256 << 20, arenaBytes: 16 << 20))
        defer { try? store.close() }
        let page = noisePage(bytes: 512, seed: 4)
        var (count, times) = (0, [(Int, Double)]())
        var size = 1000
        while size <= top {
            while count < size {
                guard store.put(Self.key(count), bytes: page, attributes: PageAttributes()) == .stored else {
                    throw Mismatch("the store took no page")
                }
                count += 1
            }
            times.append((size, lookupTime(store, pages: size)))
            size *= 10
        }
        for (size, time) in times { report.add("store.lookup_\(size)", time, "ns a key") }
        let statistics = store.statistics
        report.add(
            "store.index_bytes", Double(statistics.indexBytes) / Double(statistics.pages),
            "bytes a page, \(statistics.diskOnlyPages) pages on disk and \(statistics.ramPages) in RAM; aim ≤ 96")
        report.add(ratio: "lookup_\(times.last!.0)_vs_1000", times.last!.1 / times[0].1, target: "flat, but for caches")
    }

    /// Nanoseconds a key, present and absent ones in turn, in random order, 64 at a time as a LOOKUP has them.
    private func lookupTime(_ store: Store, pages: Int) -> Double {
        var random = SplitMix(state: 5)
        let batches = (0..<320).map { _ in
            (0..<64).map { Self.key(Int(random.next() % UInt64(pages)) + ($0 % 2 == 0 ? 0 : 1 << 40)) }
        }
        var found = 0
        let rounds = (0..<7).map { _ in
            seconds { for keys in batches { found += store.survey(keys[...]).count { $0.residence != .absent } } }
        }
        precondition(found == 7 * 32 * batches.count, "lookups found \(found) keys")
        return quantile(rounds, 0.5) / Double(64 * batches.count) * 1e9
    }

    private static func key(_ number: Int) -> StoreKey {
        // As hashes look: every bit matters.
        var random = SplitMix(state: UInt64(number))
        return StoreKey(
            tenant: 0, words: SIMD4(random.next(), random.next(), random.next(), random.next()))
    }

    // MARK: - Disk

    /// Pages from the disk through the store, against reading the same segment files with large requests that pass by the
    /// page cache, and with ordinary ones after the cache was dropped.
    private func readDisk(_ report: inout Report) throws {
        let directory = try TemporaryDirectory()
        let (pageBytes, pages) = (92 << 10, 4000)
        let configuration = StoreConfiguration(
            directory: directory.file("pages"), ramBudget: 1 << 20, diskBudget: 1 << 30, arenaBytes: 1 << 20)
        let page = noisePage(bytes: pageBytes, seed: 6)
        let store = try Store.open(configuration)
        defer { try? store.close() }
        let written = try seconds {
            for number in 0..<pages {
                guard store.put(Self.key(number), bytes: page, attributes: PageAttributes()) == .stored else {
                    throw Mismatch("the store took no page")
                }
            }
            _ = try store.flush()
        }
        let files = try Files(directory.file("pages"))
        let total = Double(pageBytes * pages)
        // One side after another drops the cache, so that each reads from the device.
        let times = try interleaved(
            rounds: 3,
            [
                Side("store") {
                    files.dropCache()
                    try read(store, pages, threads: 8)
                },
                Side("device_direct") { try files.readAll(direct: true) },
                Side("device_cached") {
                    files.dropCache()
                    try files.readAll(direct: false)
                },
            ])
        report.add("disk.write", total / written / 1e9, "GB/s through the store, flushed")
        report.add("disk.store_read", total / times["store"]! / 1e9, "GB/s in pages of \(pageBytes) bytes, 8 threads")
        report.add("disk.device_direct", Double(files.bytes) / times["device_direct"]! / 1e9, "GB/s, O_DIRECT, 1 MiB")
        report.add("disk.device_cached", Double(files.bytes) / times["device_cached"]! / 1e9, "GB/s, read-ahead, 1 MiB")
        report.add(
            ratio: "disk_read_vs_device",
            (total / times["store"]!) / (Double(files.bytes) / min(times["device_direct"]!, times["device_cached"]!)))
    }

    private func read(_ store: Store, _ pages: Int, threads: Int) throws {
        let readers = try (0..<threads).map { index in
            try KVTCSystem.Thread.start(name: "reader") {
                for number in stride(from: index, to: pages, by: threads) {
                    guard case .hit = store.borrow(Self.key(number)) else { fatalError("a page did not come back") }
                }
            }
        }
        for reader in readers { reader.join() }
    }
}
