import Glibc
import KVTCClient
import KVTCModel
import KVTCProtocol
import TestSupport
import Testing

@testable import KVTCDaemon
@testable import KVTCStore

/// Pages that another machine has written where both can find them.
@Suite struct SharedTierTests {
    private let tier = MemoryTier()
    private let keys = (0..<6).map { Pages.key(UInt64($0)) }

    /// A daemon that has coded and offered six pages, all of which the tier has; gives what a pull of them there gives.
    private func write(_ daemon: TestDaemon, mode: Mode = .quant4) throws -> [[UInt8]?] {
        let client = try daemon.client()
        defer { client.close() }
        let session = try Pages.open(client, policy: Policy(sink: 0, window: 0, mode: mode))
        let pages = keys.enumerated().map { index, key in
            ClientPage(
                key: key, firstPosition: UInt32(index * 16), bytes: Pages.random(tokens: 16, seed: UInt64(index)))
        }
        #expect(try session.push(pages).allSatisfy { $0 == .stored })
        _ = try client.call(FlushRequest(session: Wire.none))
        tier.write(from: daemon.server.engine.store)
        return try Pages.pull(client, session.number, keys, capacity: 1 << 16)
    }

    private func open(_ daemon: TestDaemon, mode: Mode = .quant4) throws -> (Client, ClientSession) {
        let client = try daemon.client()
        return (client, try Pages.open(client, policy: Policy(sink: 0, window: 0, mode: mode)))
    }

    private func residence(
        _ client: Client, _ session: ClientSession, _ keys: [PageKey]
    ) throws -> [KVTCProtocol.Residence] {
        try client.call(LookupRequest(session: session.number, leaseMs: 0, keys: keys)).residence
    }

    @Test(arguments: [0, 1] as [UInt16], [1, 6])
    func whatOneMachineCodedAnotherGivesBack(layerStep: UInt16, count: Int) throws {
        let (here, there) = (try TestDaemon(shared: tier), try TestDaemon(shared: tier))
        defer {
            here.stop()
            there.stop()
        }
        let written = try write(there)
        let (client, session) = try open(here)
        defer { client.close() }
        let wanted = Array(keys.prefix(count))
        #expect(try residence(client, session, wanted) == .init(repeating: .shared, count: count))
        let pulled = try Pages.pull(client, session.number, wanted, capacity: 1 << 16, layerStep: layerStep)
        #expect(pulled == written.prefix(count).map { layerStep == 0 ? $0 : $0.map(Pages.byLayer) })
        let elsewhere = keys.dropFirst(count)
        let report: ExplainReport = try client.call(
            ExplainRequest(session: session.number, keys: wanted + elsewhere)
        ).decoded()
        #expect(report.pages.map(\.place) == wanted.map { _ in "ram" } + elsewhere.map { _ in "shared" })
        #expect(report.pages.allSatisfy { $0.tokens == 16 && $0.bytes > 0 && $0.form == "coded" })
        // They are here now, and are neither asked for nor brought again.
        #expect(try residence(client, session, wanted) == .init(repeating: .coded, count: count))
        let traffic = tier.state.withLock { $0.asked.count + $0.fetched.count }
        _ = try Pages.pull(client, session.number, wanted, capacity: 1 << 16)
        #expect(tier.state.withLock { $0.asked.count + $0.fetched.count } == traffic)
        #expect(try client.call(StatusRequest()).decoded(as: StatusReport.self).counters.hits == UInt64(2 * count))
    }

    @Test func whatNoMachineHasIsAMissAndTheRestIsFound() throws {
        let (here, there) = (try TestDaemon(shared: tier), try TestDaemon(shared: tier))
        defer {
            here.stop()
            there.stop()
        }
        let written = try write(there)
        let (client, session) = try open(here)
        defer { client.close() }
        let wanted = [keys[0], Pages.key(99), keys[2]]
        let found = try client.call(LookupRequest(session: session.number, leaseMs: 0, keys: wanted))
        #expect(found.residence == [.shared, .absent, .shared] && found.leadingRun == 1)
        let pulled = try Pages.pull(client, session.number, wanted, capacity: 1 << 16)
        #expect(pulled == [written[0], nil, written[2]])
        tier.state.withLock { $0.isFaulty = true }
        #expect(try Pages.pull(client, session.number, [keys[3]], capacity: 1 << 16) == [nil])
    }

    @Test func aPrefetchBringsThemAndADropTakesThemAwayThere() throws {
        let (here, there) = (try TestDaemon(shared: tier), try TestDaemon(shared: tier))
        defer {
            here.stop()
            there.stop()
        }
        _ = try write(there)
        let (client, session) = try open(here)
        defer { client.close() }
        #expect(try client.call(PrefetchRequest(session: session.number, keys: keys)).queued == 6)
        let engine = here.server.engine
        while !engine.prefetching.withLock(\.isEmpty) { sched_yield() }
        #expect(try residence(client, session, keys) == .init(repeating: .coded, count: 6))
        #expect(try client.call(DropRequest(session: session.number, keys: Array(keys[..<2]))).dropped == 2)
        #expect(tier.state.withLock { $0.pages.count } == 4)
        #expect(try residence(client, session, keys) == [.absent, .absent] + .init(repeating: .coded, count: 4))
    }

    @Test func aPageForWhichThereIsNoRoomIsGivenAllTheSame() throws {
        let there = try TestDaemon(shared: tier)
        defer { there.stop() }
        let written = try write(there)
        let here = try TestDaemon(shared: tier) { $0.limits.ramPerUser = 1 }
        defer { here.stop() }
        let store = here.server.engine.store
        let use = store.use(tier.state.withLock { Array($0.pages.keys) })
        let (page, bytes) = try #require(tier.state.withLock { $0.pages[use.pages[0]] })
        let borrowed = store.admit(0, of: use, page, bytes)
        #expect(borrowed.isConfirmed && borrowed.bytes.elementsEqual(bytes))
        #expect(store.residence(use.pages[0]) == .absent)
        #expect(!store.admitAhead(0, of: use, page, bytes))
        #expect(written.count == 6)
    }

    @Test func aSessionThatWantsExactPagesIsGivenNoOthers() throws {
        let (here, there) = (try TestDaemon(shared: tier), try TestDaemon(shared: tier))
        defer {
            here.stop()
            there.stop()
        }
        _ = try write(there)
        let (client, session) = try open(here, mode: .lossless)
        defer { client.close() }
        #expect(try residence(client, session, keys) == .init(repeating: .absent, count: 6))
        #expect(try Pages.pull(client, session.number, keys, capacity: 1 << 16).allSatisfy { $0 == nil })
    }

    @Test func anEarlierClientIsToldOfTheDisk() throws {
        let (here, there) = (try TestDaemon(shared: tier), try TestDaemon(shared: tier))
        defer {
            here.stop()
            there.stop()
        }
        _ = try write(there)
        let raw = try here.raw()
        try raw.send(HelloRequest(features: Wire.features & ~Wire.featureShared & ~Wire.featureIdentity, client: "old"))
        _ = try raw.reply()
        try raw.send(Pages.request(policy: Policy(sink: 0, window: 0, mode: .quant4)))
        let session = try OpenSessionReply(body: try raw.reply().body).session
        try raw.send(LookupRequest(session: session, leaseMs: 0, keys: keys))
        let found = try LookupReply(body: try raw.reply().body)
        #expect(found.residence == .init(repeating: .disk, count: 6))
    }

    @Test func whatOthersAreToHaveIsCodedSooner() {
        var configuration = DaemonConfiguration(environment: [:], isRoot: true)
        configuration.shared.write = .always
        #expect(configuration.codeInEffect == .underPressure)
        configuration.shared.url = "redis://a"
        #expect(configuration.codeInEffect == .atOnce)
        configuration.shared.write = .idle
        #expect(configuration.codeInEffect == .idle)
        configuration.code = .atOnce
        #expect(configuration.codeInEffect == .atOnce)
        (configuration.code, configuration.shared.write) = (.underPressure, .coded)
        #expect(configuration.codeInEffect == .underPressure)
    }
}
