import Glibc
import KVTCProtocol

/// Contexts in and out: through the arena and inline, against what moves the same bytes without a daemon's duties.
final class TransferBenchmark {
    private let quick: Bool
    private let direct: BenchmarkSession
    private let turned: BenchmarkSession
    private let source: [UInt8]
    private let target: UnsafeMutableRawBufferPointer
    private var generation = 1

    init(_ daemon: DaemonProcess, quick: Bool) throws {
        self.quick = quick
        direct = try BenchmarkSession(daemon, order: .tokenTensorHead)
        turned = try BenchmarkSession(daemon, order: .tensorTokenHead)
        source = noisePage(bytes: direct.contextBytes, seed: 7)
        target = .allocate(byteCount: direct.contextBytes, alignment: 4096)
        target.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { target.deallocate() }

    func run(_ report: inout Report) throws {
        let raw = try source.withUnsafeBytes { try RawTransfer(source: UnsafeRawBufferPointer($0)) }
        let redis = try RedisServer()
        if redis == nil {
            print("no Redis on this machine ('deploy/bench' installs redis-tools): its ratios are left out")
        }
        try pulls(&report, raw, redis)
        try pushes(&report, redis)
    }

    private func pulls(_ report: inout Report, _ raw: RawTransfer, _ redis: RedisServer?) throws {
        let keys = BenchmarkSession.keys(0..<BenchmarkSession.pages)
        let turnedKeys = BenchmarkSession.keys(1000..<1000 + BenchmarkSession.pages)
        let redisKeys = keys.flatMap(\.bytes)
        let (pageBytes, contextBytes) = (direct.pageBytes, direct.contextBytes)
        try source.withUnsafeBytes { bytes in
            try direct.fill(from: bytes)
            try turned.fill(from: bytes)
            try redis?.set(keys: redisKeys, values: bytes, length: pageBytes)
        }
        try direct.push(keys)
        try turned.push(turnedKeys)
        try verify(keys, turnedKeys)

        var sides: [Side] = [
            Side("memcpy") { [self] in source.withUnsafeBytes { target.copyMemory(from: $0) } },
            Side("raw_socket") { [self] in try raw.receive(into: target) },
            Side("arena_pull") { [self] in try direct.pull(keys) },
            Side("arena_pull_turned") { [self] in try turned.pull(turnedKeys) },
            Side("inline_pull") { [self] in try direct.pull(keys, inline: true) },
        ]
        if let redis {
            sides.append(
                Side("redis_get") { [self] in try redis.get(keys: redisKeys, into: target, length: pageBytes) })
        }
        let times = try interleaved(rounds: quick ? 7 : 31, sides)
        for side in sides {
            report.add("socket.\(side.name)", Double(contextBytes) / times[side.name]! / 1e9, "GB/s, 32 pages")
        }
        report.add(ratio: "raw_pull_vs_memcpy", times["memcpy"]! / times["arena_pull"]!, target: "≥ 0.6")
        report.add(ratio: "raw_pull_turned_vs_memcpy", times["memcpy"]! / times["arena_pull_turned"]!)
        report.add(ratio: "inline_pull_vs_socket", times["raw_socket"]! / times["inline_pull"]!, target: "≥ 0.6")
        if let get = times["redis_get"] {
            report.add(ratio: "raw_pull_vs_redis_get", get / times["arena_pull"]!, target: "≥ 4")
            report.add(ratio: "inline_pull_vs_redis_get", get / times["inline_pull"]!, target: "≥ 1")
        }
        try singlePulls(&report, keys[0], Array(redisKeys.prefix(32)), raw, redis)
        try direct.drop(keys)
        try turned.drop(turnedKeys)
    }

    /// One page a request: what a round trip adds.
    private func singlePulls(
        _ report: inout Report, _ key: PageKey, _ redisKey: [UInt8], _ raw: RawTransfer, _ redis: RedisServer?
    ) throws {
        let pageBytes = direct.pageBytes
        let page = UnsafeMutableRawBufferPointer(rebasing: target[..<pageBytes])
        var sides: [Side] = [
            Side("memcpy_one") { [self] in
                source.withUnsafeBytes { page.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<pageBytes])) }
            },
            Side("raw_socket_one") { try raw.receive(into: page) },
            Side("arena_pull_one") { [self] in try direct.pull([key]) },
            Side("inline_pull_one") { [self] in try direct.pull([key], inline: true) },
        ]
        if let redis {
            sides.append(Side("redis_get_one") { try redis.get(keys: redisKey, into: page, length: pageBytes) })
        }
        let times = try interleaved(rounds: quick ? 31 : 201, sides)
        for side in sides {
            report.add("socket.\(side.name)", times[side.name]! * 1e6, "µs, 1 page of \(pageBytes) bytes")
        }
    }

    // A benchmark of wrong bytes would be worth nothing.
    private func verify(_ keys: [PageKey], _ turnedKeys: [PageKey]) throws {
        let zeros = [UInt8](repeating: 0, count: direct.contextBytes)
        for (session, keys) in [(direct, keys), (turned, turnedKeys)] {
            try zeros.withUnsafeBytes { try session.fill(from: $0) }
            try session.pull(keys)
            guard source.withUnsafeBytes({ session.holds($0) }) else { throw Mismatch("a pull brought other bytes") }
        }
        var isSame = true
        try direct.pull(keys, inline: true) { part in
            let begin = Int(part.entry) * direct.pageBytes
            isSame = isSame && part.inline.elementsEqual(source[begin..<begin + Int(part.length)])
        }
        guard isSame else { throw Mismatch("an inline pull brought other bytes") }
    }

    private func pushes(_ report: inout Report, _ redis: RedisServer?) throws {
        try source.withUnsafeBytes { bytes in
            try direct.fill(from: bytes)
            try turned.fill(from: bytes)
        }
        let (rounds, contextBytes, pageBytes) = (quick ? 7 : 31, direct.contextBytes, direct.pageBytes)
        let redisKeys = BenchmarkSession.keys(0..<BenchmarkSession.pages).flatMap(\.bytes)
        var times: [String: [Double]] = [:]
        // Not by `interleaved`: what a side pushed is dropped between rounds, outside its time.
        for round in 0...rounds {
            let keys = BenchmarkSession.keys(generation * 10_000..<generation * 10_000 + BenchmarkSession.pages)
            generation += 1
            func time(_ name: String, _ body: () throws -> Void, after clean: () throws -> Void) throws {
                let taken = try seconds(body)
                if round > 0 { times[name, default: []].append(taken) }
                try clean()
            }
            try time("memcpy_push", { source.withUnsafeBytes { target.copyMemory(from: $0) } }, after: {})
            try time("arena_push", { try direct.push(keys) }, after: { try direct.drop(keys) })
            try time("arena_push_turned", { try turned.push(keys) }, after: { try turned.drop(keys) })
            try time(
                "arena_push_filled",
                {
                    try source.withUnsafeBytes { try direct.fill(from: $0) }
                    try direct.push(keys)
                }, after: { try direct.drop(keys) })
            try time("inline_push", { try direct.pushInline(keys, source[...]) }, after: { try direct.drop(keys) })
            if let redis {
                try source.withUnsafeBytes { bytes in
                    try time(
                        "redis_set", { try redis.set(keys: redisKeys, values: bytes, length: pageBytes) },
                        after: { try redis.flush() })
                }
            }
        }
        let medians = times.mapValues { quantile($0, 0.5) }
        for name in ["memcpy_push", "arena_push", "arena_push_turned", "arena_push_filled", "inline_push", "redis_set"]
        {
            guard let median = medians[name] else { continue }
            report.add("socket.\(name)", Double(contextBytes) / median / 1e9, "GB/s, 32 pages")
        }
        report.add(ratio: "raw_push_vs_memcpy", medians["memcpy_push"]! / medians["arena_push"]!)
        if let set = medians["redis_set"] {
            report.add(ratio: "raw_push_vs_redis_set", set / medians["arena_push"]!, target: "≥ 4")
            report.add(ratio: "inline_push_vs_redis_set", set / medians["inline_push"]!, target: "≥ 1")
        }
    }
}
