import Foundation
import KVTCClient
import KVTCDaemon
import KVTCModel
import KVTCProtocol
import SyntheticProfile
import TestSupport
import Testing

/// What policies make of quality: limits, outliers, idle windows and drift, on a daemon that has a profile.
@Suite struct QualityTests {
    let synthetic: SyntheticPages
    let directory: TemporaryDirectory

    init() throws {
        synthetic = try SyntheticPages.shared.get()
        directory = try TemporaryDirectory()
        let profiles = directory.file("state/profiles")
        try FileManager.default.createDirectory(atPath: profiles, withIntermediateDirectories: true)
        try Data(synthetic.file).write(to: URL(fileURLWithPath: profiles + "/synthetic.kvtc.safetensors"))
    }

    func daemon() throws -> TestDaemon { try TestDaemon(directory: directory) { $0.nearAfterSeconds = 0 } }

    func open(_ client: Client, _ policy: Policy) throws -> ClientSession {
        try ClientSession(
            client,
            OpenSessionRequest(
                name: "test", profile: synthetic.profile.id.bytes, layout: SyntheticPages.layout, pageTokens: 64,
                policy: policy))
    }

    @discardableResult
    func push(_ session: ClientSession, _ pages: [[UInt8]], from first: Int = 0) throws -> [PushOutcome] {
        try session.push(
            pages.enumerated().map { index, page in
                ClientPage(
                    key: Pages.key(UInt64(first + index)), firstPosition: UInt32((first + index) * 64), bytes: page)
            })
    }

    func keys(_ pages: Range<Int>) -> [PageKey] { pages.map { Pages.key(UInt64($0)) } }

    /// Waits for the coder without a request of any session.
    func settle(_ client: Client) throws { _ = try client.call(FlushRequest(session: Wire.none)) }

    func status(_ client: Client) throws -> StatusReport { try client.call(StatusRequest()).decoded() }

    func residence(_ client: Client, _ pages: Range<Int>) throws -> [Residence] {
        let reader = try open(client, Policy(sink: 0))
        defer { try? reader.close() }
        return try client.call(LookupRequest(session: reader.number, leaseMs: 0, keys: keys(pages))).residence
    }

    func read(_ client: Client, _ pages: Range<Int>) throws -> [[UInt8]] {
        let reader = try open(client, Policy(sink: 0))
        defer { try? reader.close() }
        return try Pages.pull(client, reader.number, keys(pages), capacity: 1 << 20).map { try #require($0) }
    }

    @Test func anIdleWindowIsCodedNearLosslesslyUntilItIsPushedAnew() throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let policy = Policy(
            sink: 2, window: 80, quality: 16, protected: [PositionRange(begin: 200, end: 203)], near: 0.01)
        let session = try open(client, policy)
        #expect(try client.call(GetPolicyRequest(session: session.number)).policy == policy)
        let pages = synthetic.pages(6)
        try push(session, Array(pages[..<4]))
        try settle(client)
        #expect(try residence(client, 0..<4) == [.coded, .coded, .raw, .raw])

        daemon.maintain()
        try settle(client)
        #expect(try residence(client, 0..<4) == [.coded, .coded, .coded, .coded])
        var report = try status(client)
        #expect(report.counters.near == 2 && report.sessions.first?.nearPages == 2)
        let near = try read(client, 0..<4)
        for position in 0..<256 {
            let (page, row) = (position / 64, position % 64)
            let error = synthetic.error(pages[page], near[page], row: row)
            if position < 2 || (200..<203).contains(position) {
                #expect(error == 0, "position \(position)")
            } else {
                #expect(error > 0, "position \(position)")
            }
            if page >= 2 { #expect(error < 0.1, "position \(position)") }
        }

        // The pages of the window give way, the ordinary ones stay as they are.
        #expect(try push(session, Array(pages[..<4])) == [.present, .present, .stored, .stored])
        #expect(try Array(read(client, 2..<4)) == Array(pages[2..<4]))
        report = try status(client)
        #expect(report.counters.renewed == 2)
        try settle(client)
        #expect(try residence(client, 0..<4) == [.coded, .coded, .raw, .raw])
        // The session goes on; what leaves the window is coded like any page.
        try push(session, Array(pages[4...]), from: 4)
        try settle(client)
        #expect(try residence(client, 0..<6) == [.coded, .coded, .coded, .coded, .raw, .raw])
        report = try status(client)
        #expect(report.counters.near == 2)
    }

    @Test(arguments: [
        Policy(sink: 0), Policy(sink: 0, mode: .lossless), Policy(sink: 0, mode: .quant8),
        Policy(sink: 4),
        Policy(sink: 0, protected: [PositionRange(begin: 100, end: 101)]), Policy(sink: 0, mode: .kvtc),
        Policy(sink: 0, qualityKind: .distortion, quality: 0.0005), Policy(sink: 0, distortionLimit: 0.0005),
        Policy(sink: 0, qualityKind: .distortion, quality: 0.9), Policy(sink: 0, window: 4096),
    ])
    func whatALookupFindsAPullGives(policy: Policy) throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let pushing = try open(client, Policy(sink: 0, window: 64, quality: 24))
        try push(pushing, synthetic.pages(3))
        try settle(client)
        let session = try open(client, policy)
        for keys in [keys(0..<4), keys(1..<3)] {
            let found = try client.call(LookupRequest(session: session.number, leaseMs: 0, keys: keys))
            let pulled = try Pages.pull(client, session.number, keys, capacity: 1 << 20)
            #expect(found.residence.map { $0 != .absent } == pulled.map { $0 != nil })
            #expect(Int(found.leadingRun) == pulled.prefix { $0 != nil }.count)
        }
        // Two lossy pages, an exact one, one that is not there.
        let there = try Pages.pull(client, session.number, keys(0..<4), capacity: 1 << 20).map { $0 != nil }
        if policy == Policy(sink: 0) { #expect(there == [true, true, true, false]) }
        if policy == Policy(sink: 4) { #expect(there == [false, true, true, false]) }
        if policy.mode == .lossless || policy.distortionLimit != nil { #expect(there == [false, false, true, false]) }
    }

    @Test func aWindowThatAnotherSessionHoldsStaysExact() throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let idle = try open(client, Policy(sink: 0, window: 128, near: 0.01))
        let active = try open(client, Policy(sink: 0, window: 100))
        let pages = synthetic.pages(2)
        try push(idle, pages)
        #expect(try push(active, pages) == [.present, .present])
        daemon.maintain()
        try settle(client)
        #expect(try residence(client, 0..<2) == [.raw, .raw])
        // What the second one protected stays exact when it ends, the rest is the first one's.
        try active.close()
        daemon.maintain()
        try settle(client)
        #expect(try residence(client, 0..<2) == [.coded, .coded])
        let back = try read(client, 0..<2)
        for position in 0..<128 {
            let error = synthetic.error(pages[position / 64], back[position / 64], row: position % 64)
            #expect((error == 0) == (position >= 28), "position \(position)")
        }
    }

    @Test func withoutABoundAnIdleWindowStaysAsItIs() throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try open(client, Policy(window: 128))
        try push(session, synthetic.pages(2))
        daemon.maintain()
        try settle(client)
        #expect(try residence(client, 0..<2) == [.raw, .raw])
        try session.close()
        try settle(client)
        #expect(try read(client, 0..<2) == synthetic.pages(2))
    }

    @Test func aClosedSessionsNearPagesAreKnownAsSuchAfterARestart() throws {
        let pages = synthetic.pages(3)
        do {
            let daemon = try daemon()
            defer { daemon.stop() }
            let client = try daemon.client()
            let session = try open(client, Policy(sink: 0, window: 128, near: 0.01))
            try push(session, pages)
            try session.close()
            try settle(client)
            #expect(try read(client, 0..<3) != pages)
        }
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try open(client, Policy(sink: 0, window: 128))
        #expect(try push(session, pages) == [.present, .stored, .stored])
        #expect(try Array(read(client, 1..<3)) == Array(pages[1..<3]))
        #expect(try residence(client, 1..<3) == [.raw, .raw])
    }

    @Test func aLimitOnTheDistortionTakesFromTheRatioAndThenKeepsPagesLossless() throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let pages = synthetic.pages(4)
        var stored: [UInt64] = []
        // A quarter of what the ratio would have, and one that what the basis leaves out is more than.
        let expected = try #require(synthetic.profile.metadata.expectedDistortion(ratio: 24))
        for (number, limit) in [nil, Float(expected / 4), 0.0005].enumerated() {
            let before = try status(client).bytes.stored
            let session = try open(client, Policy(sink: 0, window: 0, quality: 24, distortionLimit: limit))
            try push(session, pages, from: number * 4)
            try settle(client)
            let row = try #require(try status(client).sessions.first)
            #expect(row.limited == (number == 1 ? 4 : 0))
            #expect(row.keptLossless == (number == 2 ? 4 : 0))
            stored.append(try status(client).bytes.stored - before)
            try session.close()
        }
        #expect(stored[0] < stored[1] && stored[1] < stored[2])
        let report = try status(client)
        #expect(report.counters.limited == 4 && report.counters.keptLossless == 4)
    }

    @Test func outliersAreKeptAndCountedUnlessThePolicySaysOtherwise() throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        var page = synthetic.pages(1)[0]
        let strong = synthetic.pages(1, scale: 8)[0]
        let rows = [5, 40].map { $0 * synthetic.rowBytes..<($0 + 1) * synthetic.rowBytes }
        for row in rows { page.replaceSubrange(row, with: strong[row]) }
        for (number, keeps) in [true, false].enumerated() {
            let session = try open(client, Policy(sink: 0, window: 0, quality: 8, keepsOutliers: keeps))
            try push(session, [page], from: number)
            try settle(client)
            let back = try read(client, number..<number + 1)[0]
            #expect(rows.allSatisfy { back[$0] == page[$0] } == keeps)
            #expect(try status(client).sessions.first?.outlierRows == (keeps ? 2 : 0))
            try session.close()
        }
        #expect(try status(client).counters.outlierRows == 2)
    }

    /// Rows three times as wide as calibrated have nine times the error at the same ratio, at least.
    @Test func aSessionUnlikeTheCalibrationRaisesAnAlarmOnce() throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let policy = Policy(sink: 0, window: 0, quality: 16, keepsOutliers: false)
        let ordinary = try open(client, policy)
        try push(ordinary, synthetic.pages(12))
        try settle(client)
        var row = try #require(try status(client).sessions.first)
        let factor = try #require(row.drift)
        #expect((0.2...1.4).contains(factor) && row.drifting == false)
        try ordinary.close()
        let drifting = try open(client, policy)
        try push(drifting, synthetic.pages(12, scale: 3), from: 12)
        try settle(client)
        row = try #require(try status(client).sessions.first)
        #expect(try #require(row.drift) > 1.5 && row.drifting == true)
        #expect(try status(client).counters.driftAlarms == 1)
    }

    @Test func boundsNeedAModeThatMeasuresDistortion() throws {
        let daemon = try daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try open(client, Policy(mode: .lossless))
        func set(_ session: ClientSession, _ policy: Policy) throws {
            _ = try client.call(SetPolicyRequest(session: session.number, policy: policy))
        }
        for mode in [Mode.lossless, .quant4] {
            let near = refusal {
                try set(session, Policy(mode: mode, near: 0.01))
            }
            #expect(near?.code == .invalidField && near?.field == "policy.near")
            let limit = refusal {
                try set(session, Policy(mode: mode, distortionLimit: 0.01))
            }
            #expect(limit?.code == .invalidField && limit?.field == "policy.distortionLimit")
        }
        for bound: Float in [0, 1, -1, .nan, 0.0004] {
            let refused = refusal { try set(session, Policy(near: bound)) }
            #expect(refused?.code == .invalidField && refused?.field == "policy.near")
        }
        for bound: Float in [0, -1, .nan, 0.0004] {
            let refused = refusal { try set(session, Policy(qualityKind: .distortion, quality: bound)) }
            #expect(refused?.code == .invalidField && refused?.field == "policy.quality")
        }
        #expect(try client.call(GetPolicyRequest(session: session.number)).policy == Policy(mode: .lossless))
    }
}
