import Foundation
import KVTCClient
import KVTCCodec
import KVTCModel
import KVTCProtocol
import SyntheticProfile
import TestSupport
import Testing

/// Pages that travel as they are stored, both ways.
@Suite struct BlockTransportTests {
    let bench: BlockBench

    init() throws { bench = try BlockBench() }

    @discardableResult
    func pushPages(_ session: ClientSession, _ count: Int) throws -> [[UInt8]] {
        let pages = bench.synthetic.pages(count)
        let outcomes = try session.push(
            pages.enumerated().map {
                ClientPage(key: Pages.key(UInt64($0.offset)), firstPosition: UInt32($0.offset * 64), bytes: $0.element)
            })
        #expect(outcomes.allSatisfy { $0 == .stored })
        _ = try session.client.call(FlushRequest(session: session.number))
        return pages
    }

    @Test func whatTheDaemonCodedDecodesToWhatItDecodes() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        #expect(client.server.features & Wire.featureBlocks != 0)
        let session = try bench.open(client, Policy(sink: 4, window: 64))
        let pages = try pushPages(session, 4)
        let found = try session.lookupBlocks(bench.keys(0..<5))
        #expect(found.leadingRun == 4)
        #expect(found.pages.map(\.mode) == [.transform, .transform, .transform, .raw, nil])
        #expect(found.pages.map(\.residence) == [.coded, .coded, .coded, .raw, .absent])
        #expect(found.pages.map(\.tokens) == [64, 64, 64, 64, 0])
        let blocks = try session.fetchBlocks(bench.keys(0..<5))
        #expect(found.pages.map(\.length) == blocks.map { UInt64($0?.count ?? 0) })
        let decoded = try bench.pull(session, 0..<5)
        #expect(try blocks.map { try $0.map(bench.page) } == decoded)
        #expect(decoded[3] == pages[3])
        #expect(try bench.header(try #require(blocks[0])).protected.rows == [0, 1, 2, 3])
        // A raw block comes without a checksum of its payload: the daemon has its own of the whole.
        #expect(try #require(blocks[3])[88..<96].allSatisfy { $0 == 0 })
    }

    @Test func theyComeThroughAnArenaAsWell() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try bench.open(client, Policy(sink: 4, window: 64))
        try pushPages(session, 3)
        let inline = try session.fetchBlocks(bench.keys(0..<3))
        let arena = try client.makeArena(bytes: 1 << 18)
        let room: UInt64 = 1 << 16
        var entries = bench.keys(0..<3).enumerated().map {
            PullEntry(key: $0.element, offset: UInt64($0.offset) * room, capacity: room)
        }
        // One that just fits, and one that just does not.
        entries[0].capacity = UInt64(try #require(inline[0]).count)
        entries[1].capacity = UInt64(try #require(inline[1]).count) - 1
        var parts: [UInt32: PullPart] = [:]
        let request = PullBlocksRequest(session: session.number, arena: arena.number, entries: entries)
        let reply = try client.pull(request) { parts[$0.entry] = $0 }
        #expect(reply == PullReply(hits: 2, misses: 0, corrupt: 0, other: 1))
        #expect(parts[1]?.outcome == .noSpace)
        for page in [0, 2] {
            let part = try #require(parts[UInt32(page)])
            #expect(part.outcome == .hit && part.layerBegin == 0 && part.layerEnd == 4)
            #expect(arena.memory.copy(offset: part.offset, length: part.length) == inline[page])
        }
    }

    @Test func theyComeFromTheDisk() throws {
        let blocks: [[UInt8]?]
        do {
            let daemon = try bench.daemon()
            defer { daemon.stop() }
            let session = try bench.open(daemon.client(), Policy(sink: 4, window: 0))
            try pushPages(session, 3)
            blocks = try session.fetchBlocks(bench.keys(0..<3))
        }
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let session = try bench.open(daemon.client(), Policy(sink: 4, window: 0))
        let found = try session.lookupBlocks(bench.keys(0..<3))
        #expect(found.pages.allSatisfy { $0.residence == .disk && $0.mode == nil })
        #expect(found.pages.map(\.length) == blocks.map { UInt64($0?.count ?? 0) })
        #expect(try session.fetchBlocks(bench.keys(0..<3)) == blocks)
        // Pushed blocks go there and come back as any page.
        let pushed = try bench.block(bench.synthetic.pages(1)[0], at: 192)
        #expect(try bench.push(session, 3, pushed) == .stored)
        #expect(try session.client.call(FlushRequest(session: session.number)).pages >= 1)
        #expect(try session.fetchBlocks(bench.keys(3..<4)) == [pushed])
    }

    @Test func whatIsPushedAsBlocksIsPulledDecodedAndAsItIs() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let session = try bench.open(daemon.client())
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for round in 0..<24 {
            let page = bench.synthetic.pages(round + 1)[round]
            let tokens = [64, 64, 17, 1].randomElement(using: &generator)!
            let rows = (0..<tokens).filter { _ in Int.random(in: 0..<6, using: &generator) == 0 }
            let mode = [Mode.transform, .transform, .kvtc, .quant8, .quant4, .lossless].randomElement(
                using: &generator)!
            let quality = [Quality.ratio(8), .ratio(30), .distortion(0.02)].randomElement(using: &generator)!
            let block = try bench.block(
                Array(page.prefix(tokens * bench.synthetic.rowBytes)), at: round * 64, mode: mode, quality: quality,
                protected: rows)
            let comment: Comment = "seed \(seed), round \(round): \(mode), \(tokens) tokens"
            #expect(try bench.push(session, round, block, tokens: UInt32(tokens)) == .stored, comment)
            #expect(try session.fetchBlocks(bench.keys(round..<round + 1)) == [block], comment)
            #expect(try bench.pull(session, round..<round + 1) == [try bench.page(block)], comment)
        }
        let found = try session.client.call(
            LookupRequest(session: session.number, leaseMs: 0, keys: bench.keys(0..<24)))
        #expect(found.residence.allSatisfy { $0 == .coded })
        let report: StatusReport = try session.client.call(StatusRequest()).decoded()
        #expect(report.counters.pushed == 24 && report.counters.encoded == 0)
    }

    @Test func whatIsThereStays() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let session = try bench.open(daemon.client(), Policy(sink: 0, window: 64))
        let pages = try pushPages(session, 2)
        // Page 1 is raw, and in the window: a block of it has to be exact, and then changes nothing.
        let exact = try bench.block(pages[1], at: 64, mode: .lossless)
        #expect(try bench.push(session, 1, exact) == .present)
        #expect(try session.lookupBlocks(bench.keys(1..<2)).pages.first?.mode == .raw)
        let coded = try session.fetchBlocks(bench.keys(0..<1))
        // A block that goes back in the stream cuts it there: then the window would hold it.
        let other = try bench.open(session.client)
        #expect(try bench.push(other, 0, try bench.block(pages[0], quality: .ratio(40))) == .present)
        #expect(try session.fetchBlocks(bench.keys(0..<1)) == coded)
    }

    @Test func aRawPageStaysWhereItsCoderWouldLeaveIt() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let (page, block) = (bench.synthetic.pages(1)[0], try bench.block(bench.synthetic.pages(1)[0]))
        let worker = try bench.open(client)
        // In the window of another session, and when that is over, which had its rows exact.
        let other = try bench.open(client, Policy(sink: 0, window: 64))
        try pushPages(other, 1)
        #expect(try bench.push(worker, 0, block) == .present)
        try other.close()
        #expect(try bench.push(worker, 0, block) == .present)
        #expect(try bench.pull(worker, 0..<1) == [page])
        // Rows that the session itself wants exact.
        let strict = try bench.open(client, Policy(sink: 4, window: 0))
        #expect(throws: (any Error).self) { try bench.push(strict, 0, block) }
    }

    /// Who comes first, the coder or the worker, is open; what is there then is the block of the one or of the other.
    @Test func aBlockTakesThePlaceOfARawPageAsItsCoderWould() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let session = try bench.open(daemon.client())
        let pages = bench.synthetic.pages(32)
        _ = try session.push(
            pages.enumerated().map {
                ClientPage(key: Pages.key(UInt64($0.offset)), firstPosition: UInt32($0.offset * 64), bytes: $0.element)
            })
        let blocks = try pages.enumerated().map { try bench.block($0.element, at: $0.offset * 64, quality: .ratio(40)) }
        let outcomes = try blocks.enumerated().reversed().map { try bench.push(session, $0.offset, $0.element) }
        _ = try session.client.call(FlushRequest(session: session.number))
        let found = try session.fetchBlocks(bench.keys(0..<32))
        for (number, outcome) in outcomes.reversed().enumerated() {
            #expect((found[number] == blocks[number]) == (outcome == .stored), "page \(number)")
            #expect(try bench.header(try #require(found[number])).mode == .transform)
        }
        #expect(try session.lookupBlocks(bench.keys(0..<32)).leadingRun == 32)
    }

    @Test func aBlockReplacesWhatIsLessThanTheSessionWasPromised() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let page = bench.synthetic.pages(1)[0]
        let lax = try bench.open(client)
        let rough = Quality.ratio(60)
        #expect(try bench.push(lax, 0, bench.block(page, quality: rough, protected: [5])) == .stored)
        let strict = try bench.open(client, Policy(sink: 4, window: 0))
        #expect(try strict.lookupBlocks(bench.keys(0..<1)).leadingRun == 0)
        #expect(try strict.fetchBlocks(bench.keys(0..<1)) == [nil])
        // Row 5 is exact there, and would not be any more.
        #expect(try bench.push(strict, 0, bench.block(page, quality: rough, protected: [0, 1, 2, 3])) == .present)
        let better = try bench.block(page, quality: rough, protected: [0, 1, 2, 3, 5])
        #expect(try bench.push(strict, 0, better) == .stored)
        #expect(try strict.fetchBlocks(bench.keys(0..<1)) == [better])
        #expect(try lax.fetchBlocks(bench.keys(0..<1)) == [better])
        // What one of them asks for the other one's block has to give.
        let bounded = try bench.open(client, Policy(sink: 0, window: 0, distortionLimit: 0.01))
        let tight = Quality.distortion(0.01)
        #expect(try bench.push(bounded, 0, bench.block(page, quality: tight, protected: [5])) == .present)
        let both = try bench.block(page, quality: tight, protected: [0, 1, 2, 3, 5])
        #expect(try bench.push(bounded, 0, both) == .stored)
        let report: StatusReport = try client.call(StatusRequest()).decoded()
        #expect(report.counters.renewed == 2)
        // A page pushed takes its place where no block can.
        let exact = try bench.open(client, Policy(mode: .lossless))
        #expect(try exact.push([ClientPage(key: Pages.key(0), firstPosition: 0, bytes: page)]) == [.stored])
        #expect(try bench.pull(lax, 0..<1) == [page])
    }

    @Test func aLeaseOfBlocksKeepsThem() throws {
        let daemon = try bench.daemon {
            $0.ramBudget = 2 << 20
            $0.diskBudget = 0
            // However slow the machine is.
            $0.limits.leaseSeconds = 86_400
        }
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try bench.open(client)
        let block = try bench.block(bench.synthetic.pages(1)[0], mode: .lossless)
        #expect(try bench.push(session, 0, block) == .stored)
        let found = try session.lookupBlocks(bench.keys(0..<1), leaseMs: 86_400_000)
        #expect(found.lease != 0)
        func flood(from first: Int) throws {
            let other = try bench.open(client, Policy(sink: 0, window: 0, mode: .lossless))
            for (number, page) in (0..<256).map({ ($0, Pages.random(tokens: 128, seed: UInt64($0))) }) {
                let bytes = page.prefix(64 * bench.synthetic.rowBytes)
                _ = try other.push([
                    ClientPage(
                        key: Pages.key(UInt64(first + number)), firstPosition: UInt32(number * 64), bytes: Array(bytes))
                ])
            }
            try other.close()
        }
        try flood(from: 1000)
        #expect(try session.fetchBlocks(bench.keys(0..<1), lease: found.lease) == [block])
        _ = try client.call(ReleaseRequest(lease: found.lease))
        try flood(from: 2000)
        #expect(try session.fetchBlocks(bench.keys(0..<1)) == [nil])
    }

    @Test func aDaemonSpeaksToEarlierClientsAsBefore() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let all: [(UInt32, UInt32)] = [(0, 0), (3, 3), (7, 7), (15, 15), (31, 31), (63, 63), (127, 127), (.max, 127)]
        for (wanted, given) in all {
            let raw = try daemon.raw()
            try raw.send(HelloRequest(features: wanted, client: "earlier"))
            #expect(try HelloReply(body: raw.reply().body).features == given)
        }
    }
}
