import Foundation
import KVTCClient
import KVTCModel
import KVTCProtocol
import TestSupport
import Testing

@Suite struct PageFlowTests {
    /// Pushes pages of 16 tokens with numbers as keys; gives their bytes.
    func push(_ session: ClientSession, _ pages: Range<Int>) throws -> [[UInt8]] {
        let bytes = pages.map { Pages.random(tokens: 16, seed: UInt64($0)) }
        let entries = zip(pages, bytes).map { page, bytes in
            ClientPage(key: Pages.key(UInt64(page)), firstPosition: UInt32(page * 16), bytes: bytes)
        }
        #expect(try session.push(entries) == pages.map { _ in .stored })
        return bytes
    }

    func keys(_ pages: Range<Int>) -> [PageKey] { pages.map { Pages.key(UInt64($0)) } }

    @Test func losslessPagesComeBackTheSameInEveryPhase() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(window: 32, mode: .lossless))
        #expect(session.tokenBytes == Pages.tokenBytes)
        let pages = try push(session, 0..<6)
        #expect(try Pages.pull(client, session.number, keys(0..<6), capacity: 1 << 20) == pages)
        let flushed = try client.call(FlushRequest(session: session.number))
        #expect(flushed.pages == 6)
        let found = try client.call(LookupRequest(session: session.number, leaseMs: 0, keys: keys(0..<7)))
        #expect(found.leadingRun == 6)
        #expect(found.residence == [.coded, .coded, .coded, .coded, .raw, .raw, .absent])
        // In steps the layers come one after another: K0 V0 K1 V1 instead of K0 K1 V0 V1.
        let byLayer = pages.map { Pages.byLayer($0) }
        #expect(try Pages.pull(client, session.number, keys(0..<6), capacity: 1 << 20, layerStep: 1) == byLayer)
    }

    @Test func sinksWindowAndRangesAreBitIdenticalAndTheRestIsNot() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let policy = Policy(
            sink: 3, window: 20, mode: .quant4, protected: [PositionRange(begin: 30, end: 34)])
        let session = try Pages.open(client, policy: policy)
        let pages = try push(session, 0..<5)
        _ = try client.call(FlushRequest(session: session.number))
        let back = try Pages.pull(client, session.number, keys(0..<5), capacity: 1 << 20)
        var lossy = 0
        for position in 0..<80 {
            let before = Pages.row(pages[position / 16], position % 16)
            let after = Pages.row(try #require(back[position / 16]), position % 16)
            // Page 3 (48..<64) reaches into the window, which begins at 60, and so stays raw.
            if position < 3 || (30..<34).contains(position) || position >= 48 {
                #expect(before == after, "position \(position)")
            } else if before != after {
                lossy += 1
            }
        }
        #expect(lossy == 48 - 3 - 4)
    }

    @Test func aClosedSessionsPagesAreCodedWithTheirWindowExact() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let first = try Pages.open(client, policy: Policy(sink: 0, window: 20, mode: .quant4))
        let pages = try push(first, 0..<3)
        try first.close()
        _ = try client.call(FlushRequest(session: Wire.none))
        let exact = try Pages.open(client, policy: Policy(mode: .lossless))
        // To a session that takes nothing lossy, lossy pages are none.
        let seen = try client.call(LookupRequest(session: exact.number, leaseMs: 0, keys: keys(0..<3)))
        #expect(seen.residence == [.absent, .absent, .coded] && seen.leadingRun == 0)
        let exactPages = try Pages.pull(client, exact.number, keys(0..<3), capacity: 1 << 20)
        #expect(exactPages == [nil, nil, pages[2]])
        let second = try Pages.open(client, policy: Policy(sink: 0, window: 1000, mode: .quant4))
        let found = try client.call(LookupRequest(session: second.number, leaseMs: 0, keys: keys(0..<3)))
        #expect(found.residence == [.coded, .coded, .coded])
        let back = try Pages.pull(client, second.number, keys(0..<3), capacity: 1 << 20)
        for position in 0..<48 {
            let isSame =
                Pages.row(pages[position / 16], position % 16)
                == Pages.row(try #require(back[position / 16]), position % 16)
            #expect(isSame == (position >= 28), "position \(position)")
        }
    }

    @Test func aPageThatFoundNoRoomStaysExactWhoeverUsesItLater() throws {
        // The only RAM there is holds pinned pages: none of them can be coded, as its block has nowhere to go.
        let daemon = try TestDaemon {
            $0.ramBudget = 1 << 20
            $0.diskBudget = 0
        }
        defer { daemon.stop() }
        let client = try daemon.client()
        let first = try Pages.open(client, policy: Policy(window: 65536, mode: .quant4, pin: true))
        var pages: [[UInt8]] = []
        var position = 0
        for tokens in [16, 8, 4, 2, 1] {
            while true {
                let page = ClientPage(
                    key: Pages.key(UInt64(pages.count)), firstPosition: UInt32(position),
                    bytes: Pages.random(tokens: tokens, seed: UInt64(pages.count)))
                guard try first.push([page]) == [.stored] else { break }
                pages.append(page.bytes)
                position += tokens
            }
        }
        try first.close()
        // Flushing waits for the coders before it finds that there is no disk.
        func waitForCoders() {
            #expect(refusal { _ = try client.call(FlushRequest(session: Wire.none)) }?.code == .ioError)
        }
        waitForCoders()

        let second = try Pages.open(client, policy: Policy(sink: 0, window: 0, mode: .quant4))
        #expect(try client.call(DropRequest(session: second.number, keys: keys(1..<2))).dropped == 1)
        let again = ClientPage(key: Pages.key(0), firstPosition: 0, bytes: pages[0])
        #expect(try second.push([again]) == [.present])
        waitForCoders()
        #expect(try Pages.pull(client, second.number, keys(0..<1), capacity: 1 << 20) == [pages[0]])
    }

    @Test func aConnectionThatEndsClosesItsSessions() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let lost = try daemon.client()
        let session = try Pages.open(lost, policy: Policy(window: 1000, mode: .quant8))
        let pages = try push(session, 0..<2)
        let other = try daemon.client()
        // Any connection of the same user may name the session while it lives.
        #expect(try other.call(GetPolicyRequest(session: session.number)).tokens == 32)
        lost.close()
        // The daemon notices in its own time; every answer until then is a right one.
        while refusal({ _ = try other.call(GetPolicyRequest(session: session.number)) }) == nil {}
        let next = try Pages.open(other, policy: Policy(mode: .lossless))
        #expect(try Pages.pull(other, next.number, keys(0..<2), capacity: 1 << 20) == pages)
    }

    @Test func aWindowThatGrowsKeepsWhatIsRawAndSaysWhatIsNot() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let policy = Policy(sink: 0, window: 32, mode: .quant8)
        let session = try Pages.open(client, policy: policy)
        _ = try push(session, 0..<4)
        _ = try client.call(FlushRequest(session: session.number))
        var wider = policy
        wider.window = 56
        var answer = try client.call(SetPolicyRequest(session: session.number, policy: wider))
        #expect(answer.rawTokens == 32)
        #expect(answer.alreadyCoded == [PositionRange(begin: 8, end: 32)])
        #expect(try client.call(GetPolicyRequest(session: session.number)).policy == wider)
        wider.window = 0
        answer = try client.call(SetPolicyRequest(session: session.number, policy: wider))
        #expect(answer.alreadyCoded == [])
        _ = try client.call(FlushRequest(session: session.number))
        let found = try client.call(LookupRequest(session: session.number, leaseMs: 0, keys: keys(0..<4)))
        #expect(found.residence == [.coded, .coded, .coded, .coded])
    }

    @Test func arenasCarryPagesBothWays() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let arena = try client.makeArena(bytes: 1 << 16)
        let page = Pages.random(tokens: 16, seed: 1)
        #expect(page.withUnsafeBytes { arena.memory.write($0, offset: 100) })
        let entry = PushEntry(
            key: Pages.key(1), firstPosition: 0, tokens: 16, offset: 100, length: UInt64(page.count))
        let pushed = try client.call(PushRequest(session: session.number, arena: arena.number, entries: [entry]))
        #expect(pushed.outcomes == [.stored])
        // Once the reply is there the arena is the client's: what it writes now changes nothing.
        #expect([UInt8](repeating: 0, count: 4096).withUnsafeBytes { arena.memory.write($0, offset: 0) })
        var parts: [PullPart] = []
        let reply = try client.pull(
            PullRequest(
                session: session.number, arena: arena.number, layerStep: 1,
                entries: [PullEntry(key: Pages.key(1), offset: 4096, capacity: UInt64(page.count))])
        ) { parts.append($0) }
        #expect(reply == PullReply(hits: 1, misses: 0, corrupt: 0, other: 0))
        parts.sort { $0.offset < $1.offset }
        #expect(parts.map(\.offset) == [4096, 4096 + UInt64(page.count / 2)])
        #expect(parts.map(\.layerBegin) == [0, 1])
        let expected = Pages.byLayer(page)
        #expect(arena.memory.copy(offset: 4096, length: UInt64(page.count)) == expected)
    }

    @Test func pagesOfOneRequestAreSettledInItsOrder() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(window: 32, mode: .lossless))
        // Page 40 comes twice: first as itself, then under the key of page 3.
        var bytes = (0..<41).map { Pages.random(tokens: 16, seed: UInt64($0)) }
        bytes[7][1] = 0x7C
        bytes[7][0] = 1
        let entries = bytes.indices.map { page in
            PushEntry(
                key: Pages.key(page == 40 ? 3 : UInt64(page)), firstPosition: UInt32(page * 16), tokens: 16,
                offset: UInt64(page * bytes[0].count), length: UInt64(bytes[0].count))
        }
        let request = PushRequest(
            session: session.number, arena: Wire.none, entries: entries, inline: bytes.flatMap(\.self)[...])
        var outcomes = [PushOutcome](repeating: .stored, count: 41)
        outcomes[7] = .nonFinite
        outcomes[40] = .present
        #expect(try client.call(request).outcomes == outcomes)
        #expect(try Pages.pull(client, session.number, keys(0..<40), capacity: bytes[0].count) == Array(bytes[..<40]))
        // Pages 0 to 38 have left the window of 32 tokens; page 39 is in it.
        _ = try client.call(FlushRequest(session: session.number))
        let text = try client.call(StatusRequest()).json
        let status = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect(status["pages"] as? [String: Int] == ["raw": 1, "coded": 39, "disk_only": 0, "waiting": 0])
    }

    @Test func theFirstPageUnderAKeyWins() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let pages = try push(session, 0..<1)
        let other = Pages.random(tokens: 16, seed: 99)
        #expect(
            try session.push([ClientPage(key: Pages.key(0), firstPosition: 0, bytes: other)]) == [.present])
        #expect(try Pages.pull(client, session.number, keys(0..<1), capacity: 1 << 20) == pages)
    }

    @Test func rowsThatAreNotNumbersStayBitIdentical() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(sink: 0, window: 0, mode: .quant4))
        var page = Pages.random(tokens: 16, seed: 1)
        // A NaN in row 5 of the first tensor, an infinity in row 9 of the last.
        (page[5 * 32], page[5 * 32 + 1]) = (1, 0x7E)
        (page[(48 + 9) * 32 + 2], page[(48 + 9) * 32 + 3]) = (0, 0xFC)
        #expect(
            try session.push([ClientPage(key: Pages.key(1), firstPosition: 0, bytes: page)]) == [.nonFinite])
        _ = try client.call(FlushRequest(session: session.number))
        let back = try #require(try Pages.pull(client, session.number, [Pages.key(1)], capacity: 1 << 20)[0])
        for row in 0..<16 {
            #expect((Pages.row(back, row) == Pages.row(page, row)) == (row == 5 || row == 9), "row \(row)")
        }
    }

    @Test func flushedPagesSurviveARestart() throws {
        let directory = try TemporaryDirectory()
        let first = try TestDaemon(directory: directory)
        let client = try first.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let pages = try push(session, 0..<10)
        let instance = client.server.instance
        first.stop()
        let second = try TestDaemon(directory: directory)
        defer { second.stop() }
        let again = try second.client()
        #expect(again.server.instance != instance)
        let next = try Pages.open(again, policy: Policy(mode: .lossless))
        let found = try again.call(LookupRequest(session: next.number, leaseMs: 0, keys: keys(0..<10)))
        #expect(found.leadingRun == 10)
        #expect(found.residence.allSatisfy { $0 == .disk })
        #expect(try again.call(PrefetchRequest(session: next.number, keys: keys(0..<11))).queued == 10)
        #expect(try Pages.pull(again, next.number, keys(0..<10), capacity: 1 << 20) == pages)
    }

    @Test func touchDropAndLease() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        _ = try push(session, 0..<4)
        #expect(
            try client.call(TouchRequest(session: session.number, pin: .pin, ttlSeconds: 60, keys: keys(2..<6))).found
                == 2)
        let leased = try client.call(LookupRequest(session: session.number, leaseMs: 60_000, keys: keys(0..<2)))
        #expect(leased.lease != 0)
        let pull = PullRequest(session: session.number, lease: leased.lease, arena: Wire.none, entries: [])
        #expect(try client.pull(pull) { _ in }.hits == 0)
        _ = try client.call(ReleaseRequest(lease: leased.lease))
        // One that has ended is neither an error to end nor one to pull under.
        _ = try client.call(ReleaseRequest(lease: leased.lease))
        #expect(try client.pull(pull) { _ in }.hits == 0)
        #expect(try client.call(DropRequest(session: session.number, keys: keys(3..<5))).dropped == 1)
        #expect(try client.call(DropRequest(session: session.number, keys: [])).dropped == 3)
        #expect(try client.call(DropRequest(session: Wire.none, keys: [])).dropped == 0)
    }

    @Test func statusCountsWhatHappened() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(window: 0, mode: .quant8))
        _ = try push(session, 0..<8)
        _ = try Pages.pull(client, session.number, keys(0..<10), capacity: 1 << 20)
        _ = try client.call(FlushRequest(session: session.number))
        let text = try client.call(StatusRequest()).json
        let status = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect(status["state"] as? String == "ready")
        #expect(status["instance"] as? String == String(client.server.instance, radix: 16))
        let counters = try #require(status["counters"] as? [String: Int])
        #expect(counters["pushed"] == 8)
        #expect(counters["hits"] == 8)
        #expect(counters["misses"] == 2)
        #expect(counters["encoded"] == 8)
        let pages = try #require(status["pages"] as? [String: Int])
        #expect(pages == ["raw": 0, "coded": 8, "disk_only": 0, "waiting": 0])
        #expect(try #require(status["ratio"] as? Double) > 1)
        let sessions = try #require(status["sessions"] as? [[String: Any]])
        #expect(sessions.count == 1)
        #expect(sessions.first?["tokens"] as? Int == 128)
        #expect(sessions.first?["mode"] as? String == "quant8")
        let latency = try #require(status["latency_us"] as? [String: [String: Any]])
        #expect(latency["encode"]?["count"] as? Int == 8)
        #expect(try #require(latency["pull"]?["p50"] as? Double) > 0)
    }

    /// Where the layout is the stored one, raw pages go from the store to the socket as they are.
    @Test(arguments: [UInt16(0), 1])
    func pagesInStoredOrderComeInline(layerStep: UInt16) throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let layout = PageLayout(element: .f16, order: .tokenTensorHead)
        let session = try ClientSession(
            client, Pages.request(policy: Policy(window: 1 << 16, mode: .lossless), layout: layout))
        let pages = (0..<40).map { Pages.random(tokens: 16, seed: $0) }
        let keys = (0..<40).map { Pages.key($0) }
        let outcomes = try session.push(
            pages.enumerated().map {
                ClientPage(key: keys[$0.offset], firstPosition: UInt32(16 * $0.offset), bytes: $0.element)
            })
        #expect(outcomes == [PushOutcome](repeating: .stored, count: 40))
        let pulled = try Pages.pull(client, session.number, keys, capacity: 2048, layerStep: layerStep)
        for (page, back) in zip(pages, pulled) {
            // A token's row is K0 K1 V0 V1, 32 bytes each; by layers K0 V0 of all tokens comes first.
            var expected: [UInt8] = []
            for tensors in layerStep == 0 ? [[0, 1, 2, 3]] : [[0, 2], [1, 3]] {
                for token in 0..<16 {
                    for tensor in tensors {
                        let begin: Int = token * 128 + tensor * 32
                        expected += page[begin..<begin + 32]
                    }
                }
            }
            #expect(back == expected, "layer step \(layerStep)")
        }
    }

    /// More inline bytes than one request takes at a time, and than one page of the socket's buffer.
    @Test func manyInlinePagesTravelInSeveralRequests() throws {
        let daemon = try TestDaemon { $0.ramBudget = 256 << 20 }
        defer { daemon.stop() }
        let client = try daemon.client()
        let tensors = (0..<32).flatMap { layer in
            [Role.key, .value].map { TensorGeometry(layer: layer, role: $0, heads: 4, headDim: 64) }
        }
        let session = try ClientSession(
            client,
            Pages.request(policy: Policy(window: 1 << 16, mode: .lossless), tensors: tensors, pageTokens: 16))
        let size = 16 * session.tokenBytes
        let pages = (0..<20).map { number in
            [UInt8](unsafeUninitializedCapacity: size) { buffer, filled in
                // Bytes below 0x7C are finite halves.
                for index in 0..<size { buffer[index] = UInt8(truncatingIfNeeded: (index + number) % 0x70) }
                filled = size
            }
        }
        let keys = (0..<20).map { Pages.key(UInt64($0)) }
        let outcomes = try session.push(
            pages.enumerated().map {
                ClientPage(key: keys[$0.offset], firstPosition: UInt32(16 * $0.offset), bytes: $0.element)
            })
        #expect(outcomes == [PushOutcome](repeating: .stored, count: 20))
        #expect(try session.fetch(keys) == pages)
    }
}
