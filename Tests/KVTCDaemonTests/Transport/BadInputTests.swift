import Foundation
import KVTCClient
import KVTCModel
import KVTCProtocol
import KVTCSystem
import TestSupport
import Testing

/// Every kind of bad input: the typed error, and the daemon serving afterwards.
@Suite struct BadInputTests {
    // MARK: - Frames

    @Test func badMagicEndsTheConnection() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let raw = try daemon.raw()
        var bytes = FrameHeader(opcode: 1, id: 5, status: 0, bodyLength: 0).encoded
        bytes[0] = 0
        try raw.socket.write(bytes)
        let (header, body) = try raw.reply()
        #expect(header.id == 5)
        #expect(try WireError(status: header.status, body: body).code == .badMagic)
        #expect(raw.isOver())
        try daemon.expectServing()
    }

    @Test func unknownVersionEndsTheConnection() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        var raw = try daemon.raw()
        var bytes = FrameHeader(opcode: 1, id: 5, status: 0, bodyLength: 0).encoded
        bytes[4] = 9
        try raw.socket.write(bytes)
        #expect(try raw.error() == .badVersion)
        #expect(raw.isOver())
        raw = try daemon.raw()
        try raw.send(HelloRequest(minVersion: 2, maxVersion: 9, client: "future"))
        #expect(try raw.error() == .badVersion)
        #expect(raw.isOver())
        try daemon.expectServing()
    }

    @Test func anythingBeforeHelloIsRefusedAndHelloStillWorks() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let raw = try daemon.raw()
        try raw.send(StatusRequest())
        #expect(try raw.error() == .helloRequired)
        try raw.hello()
        try raw.send(HelloRequest(client: "twice"))
        #expect(try raw.error() == .invalidField)
        try daemon.expectServing()
    }

    @Test func badBodiesAreRefusedAndTheConnectionGoesOn() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let raw = try daemon.raw()
        try raw.hello()
        try raw.send(99)
        #expect(try raw.error() == .unknownOpcode)
        try raw.send(Opcode.hello.rawValue | Opcode.replyBit)
        #expect(try raw.error() == .unknownOpcode)
        let lookup = LookupRequest(session: 1, keys: [Pages.key(1)]).encodedBody
        try raw.send(Opcode.lookup.rawValue, Array(lookup.dropLast()))
        #expect(try raw.error() == .truncated)
        try raw.send(Opcode.lookup.rawValue, lookup + [0])
        #expect(try raw.error() == .trailingBytes)
        var overflowing = lookup
        overflowing.replaceSubrange(8..<12, with: [0xFF, 0xFF, 0xFF, 0xFF])
        try raw.send(Opcode.lookup.rawValue, overflowing)
        #expect(try raw.error() == .truncated)
        try raw.send(Opcode.status.rawValue, flags: 7)
        #expect(try raw.error() == .invalidField)
        try raw.send(PingRequest(payload: [1, 2, 3]), id: 77)
        #expect(try raw.reply().header.id == 77)
        try daemon.expectServing()
    }

    @Test func aBodyOverTheLimitEndsTheConnection() throws {
        let daemon = try TestDaemon { $0.limits.bodyBytes = 4096 }
        defer { daemon.stop() }
        for length: UInt32 in [4097, 64 << 20, (64 << 20) + 1, .max] {
            let raw = try daemon.raw()
            try raw.hello()
            try raw.send(Opcode.ping.rawValue, length: length)
            #expect(try raw.error() == .tooLarge)
            #expect(raw.isOver())
        }
        try daemon.expectServing()
    }

    @Test func aFrameThatEndsEarlyIsTruncated() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let raw = try daemon.raw()
        try raw.hello()
        try raw.send(Opcode.ping.rawValue, id: 3, length: 100, [1, 2, 3])
        raw.socket.finishWriting()
        #expect(try raw.error() == .truncated)
        #expect(raw.isOver())
        try daemon.expectServing()
    }

    @Test func silenceBeforeHelloTimesOut() throws {
        let daemon = try TestDaemon { $0.limits.helloSeconds = 1 }
        defer { daemon.stop() }
        let silent = try daemon.raw()
        let slow = try daemon.raw()
        // Half a header, and then nothing.
        try slow.socket.write([0x4B, 0x56, 0x54])
        #expect(try silent.error() == .timeout)
        #expect(silent.isOver())
        #expect(try slow.error() == .timeout)
        #expect(slow.isOver())
        try daemon.expectServing()
    }

    @Test func aFrameThatNeverEndsTimesOut() throws {
        let daemon = try TestDaemon { $0.limits.frameSeconds = 1 }
        defer { daemon.stop() }
        let raw = try daemon.raw()
        try raw.hello()
        try raw.send(Opcode.ping.rawValue, length: 100, [1])
        #expect(try raw.error() == .timeout)
        #expect(raw.isOver())
        try daemon.expectServing()
    }

    // MARK: - Limits

    @Test func connectionsAreLimited() throws {
        let daemon = try TestDaemon { $0.limits.connectionsPerUser = 2 }
        defer { daemon.stop() }
        let first = try daemon.client()
        let second = try daemon.raw()
        try second.hello()
        let third = try daemon.raw()
        #expect(try third.error() == .limitExceeded)
        #expect(third.isOver())
        _ = try first.call(PingRequest(payload: []))
        second.socket.shutdown()
        // The place is free as soon as the daemon has noticed.
        while true {
            let next = try daemon.raw()
            try? next.send(HelloRequest(client: "next"))
            if (try? next.error()) == .some(nil) { break }
        }
    }

    @Test func requestsThatPileUpAreRefused() throws {
        let daemon = try TestDaemon { $0.limits.inFlight = 4 }
        defer { daemon.stop() }
        let raw = try daemon.raw()
        try raw.hello()
        // Answers of a megabyte fill the socket, so that requests pile up behind the first ones.
        let payload = [UInt8](repeating: 7, count: 1 << 20)[...]
        let count: UInt64 = 40
        let written = Monitor<UInt64>(0)
        let writer = try Thread.start {
            for id in 1...count {
                try? raw.send(PingRequest(payload: payload), id: id)
                written.update { $0 = id }
            }
        }
        // Without reading, until more requests than allowed have arrived: a megabyte is more than a socket buffers.
        _ = written.wait { $0 >= 7 ? true : nil }
        var answered: [UInt64: ErrorCode?] = [:]
        for _ in 0..<count {
            let (header, body) = try raw.reply()
            answered[header.id] =
                header.errorStatus == 0 ? .some(nil) : try WireError(status: header.errorStatus, body: body).code
        }
        writer.join()
        #expect(answered.count == Int(count))
        #expect(answered[1] == .some(nil))
        #expect(answered.values.allSatisfy { $0 == nil || $0 == .limitExceeded })
        #expect(answered.values.contains(.limitExceeded))
        try daemon.expectServing()
    }

    // MARK: - Sessions

    @Test func badSessionsAreRefused() throws {
        let daemon = try TestDaemon { $0.limits.windowTokens = 1000 }
        defer { daemon.stop() }
        let client = try daemon.client()
        func open(_ change: (inout OpenSessionRequest) -> Void) -> WireError? {
            var request = Pages.request(policy: Policy(mode: .lossless))
            change(&request)
            return refusal { _ = try ClientSession(client, request) }
        }
        #expect(open { $0.profile = [UInt8](repeating: 1, count: 32) }?.code == .unknownProfile)
        #expect(open { $0.policy.window = 1001 }?.field == "policy.window")
        #expect(open { $0.policy.sink = .max }?.field == "policy.sink")
        #expect(open { $0.policy.mode = .transform }?.field == "policy.mode")
        #expect(open { $0.pageTokens = 15 }?.field == "pageTokens")
        #expect(open { $0.pageTokens = 1025 }?.field == "pageTokens")
        #expect(open { $0.name = String(repeating: "x", count: 257) }?.field == "name")
        #expect(open { $0.tensors = [] }?.code == .invalidField)
        #expect(open { $0.tensors[0].heads = 0 }?.code == .invalidField)
        #expect(open { $0.tensors[1] = $0.tensors[0] }?.code == .invalidField)
        #expect(open { $0.tensors.swapAt(0, 1) }?.field == "geometry.tensors[1]")
        #expect(
            open {
                $0.tensors[0].rotary = Rotary(style: .halfSplit, dims: 4, inverseFrequencies: [1])
            }?.code == .invalidField)
        #expect(
            open {
                $0.tensors = (0..<400).map {
                    TensorGeometry(layer: $0, role: .key, heads: 1024, headDim: 8192)
                }
            }?.code == .invalidField)
        #expect(refusal { _ = try client.call(GetPolicyRequest(session: 12345)) }?.code == .unknownSession)
        #expect(refusal { _ = try client.call(CloseSessionRequest(session: .max)) }?.code == .unknownSession)
        try daemon.expectServing()
    }

    @Test func badPushesStoreNothing() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let size = UInt64(16 * Pages.tokenBytes)
        let inline = Pages.random(tokens: 64, seed: 1)[...]
        func push(_ entries: [PushEntry], arena: UInt32 = Wire.none) -> WireError? {
            refusal {
                let request = PushRequest(session: session.number, arena: arena, entries: entries, inline: inline)
                let outcomes = try client.call(request).outcomes
                #expect(outcomes == entries.map { _ in .stored })
            }
        }
        func entry(
            _ key: UInt64, at first: UInt32, tokens: UInt32 = 16, offset: UInt64 = 0, length: UInt64? = nil
        ) -> PushEntry {
            PushEntry(
                key: Pages.key(key), firstPosition: first, tokens: tokens, offset: offset, length: length ?? size)
        }
        #expect(push([entry(1, at: 32)]) == nil)
        let half = push([entry(3, at: 48), entry(4, at: 50)])
        #expect(half?.code == .positionConflict)
        #expect(half?.field == "entries[1].firstPosition")
        let backwards = push([entry(3, at: 48), entry(3, at: 48), entry(4, at: 16)])
        #expect(backwards?.code == .positionConflict)
        #expect(backwards?.field == "entries[2].firstPosition")
        #expect(push([entry(3, at: 48, tokens: 0, length: 0)])?.field == "entries[0].tokens")
        #expect(push([entry(3, at: 48, tokens: 17)])?.field == "entries[0].tokens")
        #expect(push([entry(3, at: 48, tokens: .max)])?.code == .invalidField)
        #expect(push([entry(3, at: .max)])?.code == .limitExceeded)
        // Half the bytes: a worker that says f16 and pushes bytes of another format.
        #expect(push([entry(3, at: 48, length: size / 2)])?.code == .geometryMismatch)
        #expect(push([entry(3, at: 48, offset: 64 * 128 - size + 1)])?.code == .arenaBounds)
        #expect(push([entry(3, at: 48, offset: .max)])?.code == .arenaBounds)
        #expect(push([entry(3, at: 48)], arena: 1)?.code == .unknownArena)
        let keys = (1...4).map { Pages.key($0) }
        let found = try client.call(LookupRequest(session: session.number, leaseMs: 0, keys: keys))
        #expect(found.residence.map { $0 == .absent } == [false, true, true, true])
        #expect(push([entry(3, at: 48)]) == nil)
        #expect(push([entry(5, at: 47)]) == nil)
        try daemon.expectServing()
    }

    @Test func badPullsAreRefused() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let page = Pages.random(tokens: 16, seed: 1)
        _ = try session.push([ClientPage(key: Pages.key(1), firstPosition: 0, bytes: page)])
        let arena = try client.makeArena(bytes: 4096)
        func pull(_ change: (inout PullRequest) -> Void) throws -> PullReply {
            var request = PullRequest(
                session: session.number, arena: arena.number,
                entries: [PullEntry(key: Pages.key(1), offset: 0, capacity: 2048)])
            change(&request)
            return try client.pull(request) { _ in }
        }
        #expect(try pull { _ in }.hits == 1)
        #expect(refusal { _ = try pull { $0.layerEnd = 3 } }?.field == "layerEnd")
        #expect(refusal { _ = try pull { ($0.layerBegin, $0.layerEnd) = (1, 1) } }?.field == "layerEnd")
        #expect(refusal { _ = try pull { $0.layerBegin = 2 } }?.field == "layerEnd")
        #expect(refusal { _ = try pull { $0.arena = 77 } }?.code == .unknownArena)
        // A lease that there is none of does no harm.
        #expect(try pull { $0.lease = 5 }.hits == 1)
        #expect(refusal { _ = try pull { $0.entries[0].capacity = 4097 } }?.code == .arenaBounds)
        #expect(refusal { _ = try pull { $0.entries[0].offset = .max } }?.code == .arenaBounds)
        #expect(try pull { $0.entries[0].capacity = 2047 }.other == 1)
        #expect(try pull { $0.layerStep = .max }.hits == 1)
        #expect(try pull { $0.entries[0].key = Pages.key(2) }.misses == 1)
        try daemon.expectServing()
    }

    // Another geometry under the same key is another page: a miss, never wrong bytes.
    @Test func aPageOfAnotherModelIsAMiss() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let page = Pages.random(tokens: 16, seed: 1)
        _ = try session.push([ClientPage(key: Pages.key(1), firstPosition: 0, bytes: page)])
        var wider = Pages.tensors
        wider[0].heads = 4
        let other = try ClientSession(
            client, Pages.request(policy: Policy(mode: .lossless), tensors: wider))
        #expect(try Pages.pull(client, other.number, [Pages.key(1)], capacity: 1 << 20) == [nil])
        let layout = PageLayout(element: .bf16)
        let third = try ClientSession(client, Pages.request(policy: Policy(mode: .lossless), layout: layout))
        #expect(try Pages.pull(client, third.number, [Pages.key(1)], capacity: 1 << 20) == [nil])
        #expect(try Pages.pull(client, session.number, [Pages.key(1)], capacity: 1 << 20) == [page])
    }

    // MARK: - Arenas, profiles, leases

    @Test func arenasAreLimited() throws {
        let daemon = try TestDaemon {
            $0.limits.arenaBytes = 1 << 20
            $0.limits.arenaBytesPerUser = 3 << 19
        }
        defer { daemon.stop() }
        let client = try daemon.client()
        for bytes in [0, (1 << 20) + 1, .max] {
            #expect(refusal { _ = try client.makeArena(bytes: bytes) }?.code == .limitExceeded)
        }
        _ = try client.makeArena(bytes: 1 << 20)
        #expect(refusal { _ = try client.makeArena(bytes: 1 << 20) }?.code == .limitExceeded)
        #expect(try client.makeArena(bytes: 1).memory.byteCount == 4096)
        // An arena belongs to its connection.
        let other = try daemon.client()
        let session = try Pages.open(other, policy: Policy(mode: .lossless))
        let request = PushRequest(session: session.number, arena: 1, entries: [])
        #expect(refusal { _ = try other.call(request) }?.code == .unknownArena)
        try daemon.expectServing()
    }

    // While the daemon reads, the client writes: whatever was stored is one consistent page that reads the same twice.
    @Test func anArenaThatIsRewrittenWhileReadStaysConsistent() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(window: 0, mode: .lossless))
        let arena = try client.makeArena(bytes: 1 << 16)
        let isOver = Monitor(false)
        let writer = try Thread.start {
            var value: UInt8 = 0
            while !isOver.withLock({ $0 }) {
                value &+= 1
                _ = [UInt8](repeating: value, count: 1 << 16).withUnsafeBytes { arena.memory.write($0, offset: 0) }
            }
        }
        let size = UInt64(16 * Pages.tokenBytes)
        for number in 0..<100 {
            let entry = PushEntry(
                key: Pages.key(UInt64(number)), firstPosition: UInt32(number * 16), tokens: 16, offset: 0, length: size)
            let request = PushRequest(session: session.number, arena: arena.number, entries: [entry])
            let outcome = try client.call(request).outcomes
            #expect(outcome == [.stored] || outcome == [.nonFinite])
        }
        isOver.update { $0 = true }
        writer.join()
        let keys = (0..<100).map { Pages.key(UInt64($0)) }
        let once = try Pages.pull(client, session.number, keys, capacity: 1 << 20)
        _ = try client.call(FlushRequest(session: session.number))
        let twice = try Pages.pull(client, session.number, keys, capacity: 1 << 20)
        #expect(once == twice)
        #expect(once.allSatisfy { $0?.count == Int(size) })
    }

    @Test func badProfilesAreRefused() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        func load(_ name: String) -> ErrorCode? {
            refusal { _ = try client.call(ProfileRequest(action: .load, name: name)) }?.code
        }
        #expect(load("") == .invalidField)
        #expect(load("../../etc/passwd") == .invalidField)
        #expect(load("/etc/passwd") == .invalidField)
        #expect(load(".hidden") == .invalidField)
        #expect(load("absent.safetensors") == .unknownProfile)
        let directory = daemon.directory.file("state/profiles")
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let hostile: [String: [UInt8]] = [
            "empty": [], "short": [1, 2, 3], "huge": [UInt8](repeating: 0xFF, count: 64),
            "notJSON": [4, 0, 0, 0, 0, 0, 0, 0] + Array("{{{{".utf8),
            "noTensors": [2, 0, 0, 0, 0, 0, 0, 0] + Array("{}".utf8),
        ]
        for (name, bytes) in hostile {
            try Data(bytes).write(to: URL(fileURLWithPath: "\(directory)/\(name).safetensors"))
            #expect(load("\(name).safetensors") == .unknownProfile, "\(name)")
        }
        #expect(try client.call(ProfileRequest(action: .list)).json == "[]")
        try daemon.expectServing()
        // The same files at start: left out, and the daemon starts.
        let second = try TestDaemon {
            $0.directory = daemon.directory.file("state2")
            $0.profileDirectory = directory
        }
        try second.expectServing()
        second.stop()
    }

    @Test func leasesAreLimited() throws {
        let daemon = try TestDaemon { $0.limits.leasesPerUser = 2 }
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let page = Pages.random(tokens: 16, seed: 1)
        _ = try session.push([ClientPage(key: Pages.key(1), firstPosition: 0, bytes: page)])
        func lease(_ milliseconds: UInt32) throws -> UInt64 {
            try client.call(
                LookupRequest(session: session.number, leaseMs: milliseconds, keys: [Pages.key(1)])
            ).lease
        }
        #expect(refusal { _ = try lease(.max) }?.code == .limitExceeded)
        let first = try lease(60_000)
        _ = try lease(60_000)
        #expect(refusal { _ = try lease(60_000) }?.code == .limitExceeded)
        _ = try client.call(ReleaseRequest(lease: first))
        #expect(try lease(60_000) != 0)
        // Nothing found, nothing leased.
        let absent = LookupRequest(session: session.number, leaseMs: 1000, keys: [Pages.key(9)])
        #expect(try client.call(absent).lease == 0)
        try daemon.expectServing()
    }
}
