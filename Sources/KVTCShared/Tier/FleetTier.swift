import KVTCCodec
import KVTCStore
import KVTCSystem
import Synchronization

/// The pages that the machines of a fleet share through Redis or Valkey servers.
///
/// Values are sealed under the fleet's secret, each for its own tenant and page, so that one that verifies is the right one. Everything
/// that goes wrong is a miss within a bounded time, counted by its reason.
public final class FleetTier: SharedTier {
    /// Lets `body` see the block of a page and what is known of it; false when the page is not there. The block has been verified.
    public typealias ReadBlock =
        @Sendable (StoreKey, (UnsafeRawBufferPointer, PageAttributes) -> Void) -> Bool

    /// Keys that one ``ask(_:)`` takes; those beyond are not asked for.
    public static let mostAsked = 65_536

    let settings: FleetSettings
    let names: FleetNames
    let servers: any FleetServers
    let tally = Tally()
    let absences: Mutex<Absences>
    let behind: WriteBehind
    let fetches: Fetches
    let profiles = Mutex<ProfileExchange?>(nil)
    private let log: @Sendable (FleetEvent) -> Void

    /// A tier on the servers that the settings name. None is waited for: until they are connected everything is a miss.
    /// - Parameters:
    ///   - tenantName: what the user of pages is called on every machine of the fleet.
    ///   - log: hears of changes, on any thread.
    public convenience init(
        _ settings: FleetSettings, tenantName: @escaping @Sendable (UInt32) -> String,
        readBlock: @escaping ReadBlock, log: @escaping @Sendable (FleetEvent) -> Void
    ) throws(SystemError) {
        let client = RedisClient(settings.redis) { log(.servers($0)) }
        try self.init(settings, servers: client, tenantName: tenantName, readBlock: readBlock, log: log)
        // So that the first lookup finds them connected.
        client.onEachMaster(
            RedisCommand("PING"),
            until: MonotonicClock.nanoseconds + UInt64(max(1, settings.redis.connectMilliseconds)) * 1_000_000
        ) { _ in }
    }

    /// The same on servers that tests play.
    init(
        _ settings: FleetSettings, servers: any FleetServers, tenantName: @escaping @Sendable (UInt32) -> String,
        readBlock: @escaping ReadBlock, log: @escaping @Sendable (FleetEvent) -> Void
    ) throws(SystemError) {
        self.settings = settings
        self.servers = servers
        self.log = log
        names = FleetNames(prefix: settings.prefix, secret: settings.secret, tenantName: tenantName)
        absences = Mutex(Absences(nanoseconds: UInt64(max(0, settings.absentSeconds)) * 1_000_000_000))
        let (names, tally) = (names, tally)
        behind = WriteBehind(settings, servers: servers, names: names, tally: tally, readBlock: readBlock, log: log)
        fetches = Fetches(settings, servers: servers, names: names, tally: tally)
        try behind.start { [weak self] key in self?.forgetAbsence(key) }
        do throws(SystemError) {
            try fetches.start { [weak self] key, outcome in self?.note(key, outcome) }
        } catch {
            behind.close()
            throw error
        }
    }

    /// Has profiles travel: this machine's to the others, and theirs here.
    /// - Parameters:
    ///   - loaded: the profiles that are here, by the names of their files.
    ///   - take: keeps a profile under a name that none of those has; it has been verified.
    public func exchangeProfiles(
        loaded: @escaping @Sendable () -> [(name: String, profile: Profile)],
        take: @escaping @Sendable (_ name: String, _ profile: Profile) -> Void
    ) throws(SystemError) {
        let exchange = ProfileExchange(
            settings, servers: servers, budget: behind.budget, tally: tally, loaded: loaded, take: take, log: log)
        try exchange.start()
        profiles.withLock { $0 = exchange }
    }

    /// Waits until what was offered and removed so far is done there, as far as the servers take it.
    public func finish(until deadline: UInt64) { behind.finish(until: deadline) }

    /// Ends it. What is asked or fetched now gets a fault, what waits to be written is not written.
    public func close() {
        // Before the servers, so that their faults are not taken for such.
        let exchange = profiles.withLock { $0 }
        exchange?.beginClosing()
        behind.beginClosing()
        fetches.beginClosing()
        servers.close()
        exchange?.close()
        behind.close()
        fetches.close()
    }

    /// What it has done since the start.
    package var statistics: SharedStatistics {
        var statistics = tally.now
        behind.report(&statistics)
        statistics.servers = servers.status()
        return statistics
    }

    // MARK: SharedTier

    /// Pages that are coded, to be written behind.
    public func offer(_ keys: [StoreKey]) { if settings.writes { behind.offer(keys) } }

    /// Removes pages there; until that is done they are absent here.
    public func remove(_ keys: [StoreKey]) {
        behind.remove(keys)
        fetches.cancel(keys)
    }

    /// Brings pages.
    public func fetch(_ keys: [StoreKey], _ done: @escaping @Sendable (Int, SharedOutcome) -> Void) {
        let isAbsent = knownAbsences(keys[...])
        fetches.add(keys, isAbsent: isAbsent, done)
    }

    // MARK: Absences

    /// Which pages are known to be absent: since they were a moment ago, or are being removed.
    func knownAbsences(_ keys: ArraySlice<StoreKey>) -> [Bool] {
        let now = MonotonicClock.nanoseconds
        let removals = behind.removals(keys)
        return absences.withLock { absences in
            zip(keys, removals).map { key, removal in removal != nil || absences.contains(key, at: now) }
        }
    }

    func noteAbsence(_ key: StoreKey) {
        absences.withLock { $0.insert(key, at: MonotonicClock.nanoseconds) }
    }

    private func forgetAbsence(_ key: StoreKey) { absences.withLock { $0.remove(key) } }

    private func note(_ key: StoreKey, _ outcome: SharedOutcome) {
        switch outcome {
        case .hit: forgetAbsence(key)
        case .absent: noteAbsence(key)
        case .fault: break
        }
    }
}
