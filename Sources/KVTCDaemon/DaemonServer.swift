import Glibc
import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem
import Logging

/// A daemon: sockets in front, engine and store behind. ``start()`` serves until ``stop(notifier:)``.
public final class DaemonServer: Sendable {
    private struct Clients {
        var connections: [UInt64: ClientConnection] = [:]
        var lastID: UInt64 = 0
    }

    /// Requests that the disk gets at a time from pulls and prefetches.
    private static let readers = 8

    let engine: Engine
    private let listeners: [UnixListener]
    private let wakeUp: WakeUp
    private let quota = Quota()
    private let clients = Monitor(Clients())
    private let accepting = Monitor(0)
    private let log: Logger

    /// Opens store, profiles and sockets. Without sockets from outside it makes the configured one.
    public init(
        configuration: DaemonConfiguration, inherited: [UnixListener] = [], keeper: ArenaKeeper? = nil, log: Logger
    ) throws {
        for warning in try configuration.validate(makesSocket: inherited.isEmpty) {
            log.warning("questionable configuration", metadata: ["about": "\(warning)"])
        }
        self.log = log
        let profiles = ProfileRegistry(directory: configuration.effectiveProfileDirectory) {
            (path) throws(CodecError) in try Profile.open(path: path)
        }
        profiles.scan(log: log)
        var tiers = StoreConfiguration(
            directory: configuration.effectiveDiskBudget == 0 ? nil : configuration.directory,
            ramBudget: configuration.ramBudget, diskBudget: configuration.effectiveDiskBudget,
            segmentBytes: configuration.segmentBytes, ramPerTenant: configuration.limits.ramPerUser,
            diskPerTenant: configuration.limits.diskPerUser)
        tiers.keeper = keeper
        let store = try Store.open(tiers)
        let pool = try WorkPool(threads: configuration.workers)
        let readers = try WorkPool(threads: DaemonServer.readers, name: "kvtc-disk")
        engine = Engine(
            configuration: configuration, store: store, pool: pool, readers: readers, profiles: profiles, log: log)
        wakeUp = try WakeUp()
        if inherited.isEmpty {
            SocketDirectory(of: configuration.socketPath, home: configuration.home).make()
            listeners = [
                try UnixListener(path: configuration.socketPath, mode: mode_t(configuration.socketMode))
            ]
        } else {
            listeners = inherited
        }
    }

    /// Starts to take connections.
    public func start() throws {
        for listener in listeners {
            accepting.update { $0 += 1 }
            try Thread.start(name: "kvtc-accept") { [self] in
                accept(listener)
                accepting.update { $0 -= 1 }
            }.detach()
        }
        let found = engine.store.statistics
        log.info(
            "serving",
            metadata: [
                "pages": "\(found.recovered)", "warm": "\(found.recoveredFromRAM)",
                "socket": "\(listeners.first?.path ?? "inherited")", "ram": "\(engine.configuration.ramBudget)",
                "disk": "\(engine.configuration.effectiveDiskBudget)",
                "directory": "\(engine.configuration.directory ?? "none")",
            ])
    }

    private func accept(_ listener: UnixListener) {
        while true {
            do throws(SystemError) {
                guard let socket = try listener.accept(wakeUp: wakeUp) else { return }
                admit(socket)
            } catch {
                log.error("accept failed", metadata: ["error": "\(error)"])
                // Out of descriptors: the wake-up's own wait keeps this from spinning until some are closed.
                if wakeUp.wait(milliseconds: 100) { return }
            }
        }
    }

    private func admit(_ socket: UnixConnection) {
        let (limits, tenants) = (engine.configuration.limits, engine.configuration.tenants)
        let tenant = tenants.tenant(of: socket.peer)
        let isAdministrator = tenants.isAdministrator(socket.peer)
        let connection = clients.update { clients -> ClientConnection? in
            let ofTenant = clients.connections.values.count { $0.caller.tenant == tenant }
            // Whoever is to look after a crowded daemon must get in.
            let isFull = clients.connections.count >= limits.connections && !isAdministrator
            guard !isFull, ofTenant < limits.connectionsPerUser else { return nil }
            clients.lastID += 1
            let caller = Caller(
                tenant: tenant, connection: clients.lastID, isAdministrator: isAdministrator, peer: socket.peer)
            let connection = ClientConnection(caller: caller, socket: socket, engine: engine, quota: quota)
            clients.connections[clients.lastID] = connection
            return connection
        }
        guard let connection else { return refuse(socket) }
        log.debug(
            "connected",
            metadata: [
                "connection": "\(connection.id)", "uid": "\(socket.peer.uid)", "pid": "\(socket.peer.pid)",
            ])
        let id = connection.id
        do throws(SystemError) {
            try connection.start { [self] in forget(id) }
        } catch {
            log.error("no thread for a connection", metadata: ["error": "\(error)"])
            forget(id)
        }
    }

    private func forget(_ id: UInt64) { clients.update { $0.connections[id] = nil } }

    private func refuse(_ socket: UnixConnection) {
        let body = WireError(.limitExceeded, "too many connections").encodedBody()
        let header = FrameHeader(
            opcode: Opcode.hello.rawValue | Opcode.replyBit, id: 0, status: ErrorCode.limitExceeded.rawValue,
            bodyLength: UInt32(body.count))
        // The socket is new and its buffer empty, so this cannot block; a peer that is gone need not hear it.
        try? socket.write([header.encoded[...], body[...]])
        socket.shutdown()
    }

    /// What the daemon is doing, in a line for the service manager. Taking every lock on the way, it also shows that
    /// none is stuck.
    public func summary() -> String {
        let statistics = engine.store.statistics
        let sessions = engine.ledger.withLock { $0.sessions.count }
        let connections = clients.withLock { $0.connections.count }
        return "\(statistics.pages) pages, \(sessions) sessions, \(connections) connections"
    }

    /// Work that nobody asks for: gives back the room of pages whose time is over, has the windows of idle sessions coded, and
    /// tries a disk that failed again.
    public func maintain() {
        _ = engine.store.purgeExpired()
        engine.restIdleSessions(now: MonotonicClock.nanoseconds)
        // Not here: a disk that hangs must not look like a daemon that does.
        if case .degraded = engine.store.statistics.state {
            engine.pool.submit(.background) { [engine] in engine.store.heal() }
        }
    }

    /// Ends in order: no new connections or requests, answers owed are given, pages are coded, everything is made
    /// durable. False when something could not be written.
    @discardableResult
    public func stop(notifier: Notifier? = nil) -> Bool {
        notifier?.stopping(status: "draining")
        log.info("stopping")
        engine.refuseRequests()
        wakeUp.signal()
        _ = accepting.wait { $0 == 0 ? true : nil }
        for listener in listeners { listener.removePath() }
        // Answers owed get a while; then connections end and with them their sessions.
        let deadline = MonotonicClock.nanoseconds + 10_000_000_000
        for connection in clients.withLock({ Array($0.connections.values) }) { connection.awaitIdle(until: deadline) }
        for connection in clients.withLock({ Array($0.connections.values) }) { connection.close() }
        _ = clients.wait { $0.connections.isEmpty ? true : nil }
        engine.waitForEncodes { _ in true }
        engine.readers.stop()
        engine.pool.stop()
        return closeStore()
    }

    private func closeStore() -> Bool {
        var isWritten = true
        func attempt(_ body: () throws(StoreError) -> Void) {
            do throws(StoreError) {
                try body()
            } catch {
                log.error("not everything was written", metadata: ["error": "\(error)"])
                isWritten = false
            }
        }
        if engine.store.hasDisk {
            attempt { () throws(StoreError) in
                let written = try engine.store.flush(order: .mostWorthFirst)
                log.info("flushed", metadata: ["pages": "\(written.pages)", "bytes": "\(written.bytes)"])
            }
        }
        attempt { () throws(StoreError) in try engine.store.close() }
        if isWritten { log.info("stopped") }
        return isWritten
    }
}
