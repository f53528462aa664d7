import Foundation
import KVTCClient
import KVTCCodec
import KVTCModel
import KVTCProtocol
import SyntheticProfile
import TestSupport
import Testing

/// Blocks that a session has no use for, each refused for its one fault, with nothing stored.
@Suite struct BlockRefusalTests {
    let bench: BlockBench

    init() throws { bench = try BlockBench() }

    struct Fault: CustomTestStringConvertible {
        var field: String
        var code = ErrorCode.invalidField
        var policy = Policy(sink: 0, window: 0)
        var mode = Mode.transform
        var protected: [Int] = []
        var tokens: UInt32 = 64
        var first = 128
        var isSealed = true
        var what = ""
        var change: @Sendable (inout [UInt8]) -> Void = { _ in }

        var testDescription: String { what.isEmpty ? field : "\(field): \(what)" }
    }

    static let faults: [Fault] = [
        Fault(field: "block", what: "magic") { $0[0] ^= 1 },
        Fault(field: "block", isSealed: false, what: "a bit of the header") { $0[70] ^= 1 },
        Fault(field: "block", isSealed: false, what: "a bit of the payload") { $0[$0.count - 1] ^= 1 },
        Fault(field: "block", what: "cut") { $0.removeLast() },
        Fault(field: "block", what: "a byte more") { $0.append(0) },
        Fault(field: "block", what: "shorter than a header") { $0.removeLast($0.count - 100) },
        Fault(field: "block", what: "lengths that overflow") { $0.put(UInt32.max, at: 84) },
        Fault(field: "block", what: "a bitmap of another size") { block in
            block.put(UInt32(1), at: 76)
            block.put(UInt32(block.count) - 105, at: 84)
        },
        Fault(field: "block", what: "an unknown mode") { $0[6] = 9 },
        Fault(field: "block", what: "an unknown element") { $0[7] = 9 },
        Fault(field: "block", what: "no tokens") { $0.put(UInt32(0), at: 48) },
        Fault(field: "version") { $0.put(UInt16(999), at: 4) },
        Fault(field: "mode", mode: .raw),
        Fault(field: "element", code: .geometryMismatch) { $0[7] = 2 },
        Fault(field: "geometry", code: .geometryMismatch, what: "hash") { $0[40] ^= 1 },
        Fault(field: "geometry", code: .geometryMismatch, what: "elements of a row") { $0.put(UInt32(255), at: 56) },
        Fault(field: "tokens", tokens: 63),
        Fault(field: "firstPosition", first: 129),
        Fault(field: "profile", what: "another one") { $0[8] ^= 1 },
        Fault(field: "profile", what: "none") { block in for at in 8..<40 { block[at] = 0 } },
        Fault(field: "profile", mode: .quant8, what: "one that the mode does not need") { $0[8] = 1 },
        Fault(field: "length") { block in
            let more = 64 * 512 + 104 + 1 - block.count
            block += [UInt8](repeating: 0, count: more)
            block.put(UInt32(block.count - 104), at: 84)
        },
        Fault(field: "protected", policy: Policy(sink: 130, window: 0), protected: [0], what: "sink"),
        Fault(field: "protected", policy: Policy(sink: 0, window: 2), protected: [62], what: "window"),
        Fault(
            field: "protected",
            policy: Policy(sink: 0, window: 0, protected: [PositionRange(begin: 190, end: 200)]), protected: [62],
            what: "range"),
        Fault(field: "protected", mode: .lossless, what: "rows in a block that is exact") { block in
            block.insert(contentsOf: [1, 0, 0, 0, 0, 0, 0, 0], at: 104)
            block.put(UInt32(1), at: 60)
            block.put(UInt32(8), at: 76)
        },
        Fault(field: "mode", policy: Policy(sink: 0, window: 0, mode: .lossless), what: "lossy"),
        Fault(field: "mode", policy: Policy(sink: 0, window: 0, mode: .quant8), mode: .quant4, what: "fewer bits"),
        Fault(field: "mode", policy: Policy(sink: 0, window: 0, mode: .quant4), what: "no bits"),
        Fault(
            field: "mode", policy: Policy(sink: 0, window: 0, distortionLimit: 0.5), mode: .quant8,
            what: "a quantiser, where there is a bound"),
        Fault(field: "distortion", policy: Policy(sink: 0, window: 0, distortionLimit: 0.0005), what: "limit"),
        Fault(
            field: "distortion", policy: Policy(sink: 0, window: 0, qualityKind: .distortion, quality: 0.0005),
            what: "quality"),
        Fault(field: "distortion", what: "not a number") { $0.put(Float.nan.bitPattern, at: 68) },
        Fault(field: "distortion", what: "negative") { $0.put((-0.5 as Float).bitPattern, at: 68) },
        Fault(field: "step", what: "infinite") { $0.put(Float.infinity.bitPattern, at: 64) },
    ]

    @Test(arguments: faults) func isRefusedForItsFault(fault: Fault) throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let session = try bench.open(daemon.client(), fault.policy)
        let page = bench.synthetic.pages(1)[0]
        let good = try bench.block(page, at: 0, mode: .lossless)
        var bad = try bench.block(page, at: 128, mode: fault.mode, protected: fault.protected)
        fault.change(&bad)
        if fault.isSealed, bad.count >= BlockHeader.size { bad = changed(bad) { _ in } }
        let error = refusal {
            _ = try session.pushBlocks([
                ClientBlock(key: Pages.key(0), firstPosition: 0, tokens: 64, bytes: good),
                ClientBlock(
                    key: Pages.key(2), firstPosition: UInt32(fault.first), tokens: fault.tokens, bytes: bad),
            ])
        }
        #expect(error?.field == "entries[1].\(fault.field)", "\(error.map { "\($0)" } ?? "not refused")")
        #expect(error?.code == fault.code)
        // Nothing of the request is stored; each by itself is as it should be.
        #expect(try session.lookupBlocks(bench.keys(0..<3)).pages == [StoredPage(), StoredPage(), StoredPage()])
        try daemon.expectServing()
    }

    @Test func placesAndLengthsAreCheckedAsOfPages() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try bench.open(client)
        let block = try bench.block(bench.synthetic.pages(1)[0])
        func push(_ entries: [PushEntry], arena: UInt32 = Wire.none) -> WireError? {
            refusal {
                _ = try client.call(
                    PushBlocksRequest(session: session.number, arena: arena, entries: entries, inline: block[...]))
            }
        }
        func entry(_ key: UInt64 = 0, first: UInt32 = 0, offset: UInt64 = 0, length: UInt64? = nil) -> PushEntry {
            PushEntry(
                key: Pages.key(key), firstPosition: first, tokens: 64, offset: offset,
                length: length ?? UInt64(block.count))
        }
        #expect(push([entry(offset: 1)])?.code == .arenaBounds)
        #expect(push([entry(offset: .max)])?.code == .arenaBounds)
        #expect(push([entry(length: .max)])?.code == .arenaBounds)
        #expect(push([entry(length: 0)])?.field == "entries[0].block")
        #expect(push([entry(), entry(1, first: 32)])?.code == .positionConflict)
        #expect(push([entry()], arena: 9)?.code == .unknownArena)
        #expect(push([entry(first: .max)])?.code == .limitExceeded)
        #expect(push([entry()]) == nil)
        let unknown = PushBlocksRequest(session: session.number &+ 1, arena: Wire.none, entries: [])
        #expect(refusal { _ = try client.call(unknown) }?.code == .unknownSession)
    }

    @Test func theWindowIsThatBeforeTheEndThatThePushReaches() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let session = try bench.open(daemon.client(), Policy(sink: 0, window: 80))
        let pages = bench.synthetic.pages(3)
        func blocks(_ rows: [[Int]]) throws -> [ClientBlock] {
            try rows.enumerated().map { page, rows in
                ClientBlock(
                    key: Pages.key(UInt64(page)), firstPosition: UInt32(page * 64), tokens: 64,
                    bytes: try bench.block(pages[page], at: page * 64, protected: rows))
            }
        }
        // 192 tokens: positions from 112 on, row 48 of the second page.
        let window = Array(48..<64)
        #expect(
            refusal { _ = try session.pushBlocks(try blocks([[], Array(49..<64), Array(0..<64)])) }?.field
                == "entries[1].protected")
        #expect(
            refusal { _ = try session.pushBlocks(try blocks([[], window, Array(0..<63)])) }?.field
                == "entries[2].protected")
        #expect(try session.pushBlocks(try blocks([[], window, Array(0..<64)])) == [.stored, .stored, .stored])
    }

    /// Blocks whose checksums are right and whose content is anything: the daemon never decodes more than it can, other pages
    /// stay what they are, and what no decoder takes is gone once that is seen.
    @Test func hostileBlocksHurtOnlyThemselves() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try bench.open(client)
        let page = bench.synthetic.pages(1)[0]
        let safe = try bench.block(page, at: 1 << 20)
        #expect(try bench.push(session, 1 << 14, safe) == .stored)
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        var (stored, corrupt) = (0, 0)
        for round in 0..<300 {
            let mode = [Mode.transform, .kvtc, .quant8, .quant4, .lossless].randomElement(using: &generator)!
            let hostile = changed(try bench.block(page, at: 0, mode: mode, protected: [1, 2])) { block in
                for _ in 0..<Int.random(in: 1...8, using: &generator) {
                    let at = Int.random(in: BlockHeader.size..<block.count, using: &generator)
                    block[at] = .random(in: 0...255, using: &generator)
                }
            }
            let other = try bench.open(client)
            guard let outcome = try? bench.push(other, round, hostile, at: 0) else { continue }
            #expect(outcome == .stored, "seed \(seed), round \(round)")
            stored += 1
            #expect(try other.fetchBlocks(bench.keys(round..<round + 1)) == [hostile])
            var part: PullOutcome?
            let entries = [PullEntry(key: Pages.key(UInt64(round)), offset: 0, capacity: 1 << 20)]
            let request = PullRequest(session: other.number, arena: Wire.none, entries: entries)
            _ = try client.pull(request) { part = $0.outcome }
            let isDecodable = (try? bench.page(hostile)) != nil
            #expect(part == (isDecodable ? .hit : .corrupt), "seed \(seed), round \(round), \(mode)")
            if part == .corrupt {
                corrupt += 1
                // It is taken out behind the answer; from then on a good one finds room under its key.
                let good = try bench.block(page, at: 0)
                while try bench.push(other, round, good, at: 0) == .present {}
                #expect(try other.fetchBlocks(bench.keys(round..<round + 1)) == [good])
            }
            try other.close()
        }
        #expect(stored > 100 && corrupt > 20, "seed \(seed): \(stored) stored, \(corrupt) corrupt")
        #expect(try session.fetchBlocks([Pages.key(1 << 14)]) == [safe])
        try daemon.expectServing()
    }

    @Test func anyChangeOfABlockIsRefusedOrHarmless() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let block = try bench.block(bench.synthetic.pages(1)[0], protected: [0, 9])
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for round in 0..<300 {
            let session = try bench.open(client)
            let bad = changed(block) { block in
                let width = [1, 2, 4, 8].randomElement(using: &generator)!
                let at = Int.random(in: 0...96 - width, using: &generator)
                for byte in at..<at + width { block[byte] = [0, 1, 127, 128, 255].randomElement(using: &generator)! }
            }
            _ = try? bench.push(session, round, bad, at: 0)
            _ = try bench.pull(session, round..<round + 1)
            _ = try session.lookupBlocks(bench.keys(round..<round + 1))
            _ = try client.call(SetPolicyRequest(session: session.number, policy: Policy(sink: 4)))
            try session.close()
        }
        try daemon.expectServing("seed \(seed)")
    }
}
