import Glibc
import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem
import Logging
import Synchronization

/// A daemon: sockets in front, engine and store behind. ``start()`` serves until ``stop(notifier:)``.
public final class DaemonServer: Sendable {
    struct Clients: Sendable {
        var connections: [UInt64: ClientConnection] = [:]
    }

    /// A socket to connect to.
    struct Door: Sendable {
        var listener: UnixListener
        /// The tenant that everybody is who comes in here; nil: who they are follows from the user.
        var tenant: UInt32?
    }

    /// Requests that the disk gets at a time from pulls and prefetches.
    private static let readers = 8

    let engine: Engine
    let doors: [Door]
    let wakeUp: WakeUp
    let clients = Monitor(Clients())
    let accepting = Monitor(0)
    /// Orders to read everything anew that are not done.
    let reloads = Atomic(0)
    let log: Logger
    let stopLimits: StopLimits
    let tenants: FleetTenants
    private let quota: Quota
    private let namespace = UserNamespace()

    /// Opens store, profiles and sockets. Without sockets from outside it makes the configured one.
    public convenience init(
        configuration: DaemonConfiguration, inherited: [UnixListener] = [], keeper: ArenaKeeper? = nil, log: Logger
    ) throws {
        try self.init(
            configuration: configuration, inherited: inherited, log: log,
            pool: WorkPool(threads: configuration.workers),
            coders: WorkPool(threads: configuration.workers, name: "kvtc-code", priority: .low)
        ) { $0.keeper = keeper }
    }

    /// The same with what tests play: the pool that computes, and codes where there is none for that, the parts of the store, and how long a stop waits.
    package init(
        configuration: DaemonConfiguration, inherited: [UnixListener] = [], log: Logger, pool: WorkPool,
        coders: WorkPool? = nil, shared: (any SharedTier)? = nil, stopLimits: StopLimits = StopLimits(),
        _ change: (inout StoreConfiguration) -> Void
    ) throws {
        self.stopLimits = stopLimits
        for warning in try configuration.validate(bound: inherited.map(\.boundPath)) {
            log.warning("questionable configuration", metadata: ["about": "\(warning)"])
        }
        self.log = log
        let profiles = ProfileRegistry(directory: configuration.effectiveProfileDirectory) {
            (path) throws(CodecError) in try Profile.open(path: path)
        }
        profiles.scan(log: log)
        var tiers = configuration.tiers
        change(&tiers)
        let store = try Store.open(tiers)
        tenants = FleetTenants(configuration)
        let shared = try shared ?? DaemonServer.openFleet(configuration, store, profiles, tenants, log)
        let readers = try WorkPool(threads: DaemonServer.readers, name: "kvtc-disk")
        engine = Engine(
            configuration: configuration, store: store, shared: shared, pool: pool, coders: coders, readers: readers,
            profiles: profiles, log: log)
        wakeUp = try WakeUp()
        quota = Quota(room: DescriptorRoom(configuration))
        doors = try DaemonServer.open(configuration, inherited)
    }

    /// Inherited sockets, of which those at a container's path are that container's, and those that are missing.
    private static func open(_ configuration: DaemonConfiguration, _ inherited: [UnixListener]) throws -> [Door] {
        let containers = configuration.containers
        var doors = inherited.map { listener in
            let name = containers.first { $0.value == listener.boundPath }?.key
            return Door(listener: listener, tenant: name.map(Tenants.tenant(ofContainer:)))
        }
        func make(_ path: String, _ tenant: UInt32?) throws {
            SocketDirectory(of: path, home: configuration.home).make()
            let listener = try UnixListener(path: path, mode: mode_t(configuration.socketMode))
            doors.append(Door(listener: listener, tenant: tenant))
        }
        do {
            if !doors.contains(where: { $0.tenant == nil }) { try make(configuration.socketPath, nil) }
            for (name, path) in containers.sorted(by: { $0.key < $1.key }) {
                let tenant = Tenants.tenant(ofContainer: name)
                if !doors.contains(where: { $0.tenant == tenant }) { try make(path, tenant) }
            }
        } catch {
            for door in doors { door.listener.removePath() }
            throw error
        }
        return doors
    }

    /// Starts to take connections.
    public func start() throws {
        for door in doors {
            accepting.update { $0 += 1 }
            try Thread.start(name: "kvtc-accept") { [self] in
                accept(door)
                accepting.update { $0 -= 1 }
            }.detach()
        }
        let found = engine.store.statistics
        if quota.room.connections < engine.limits.connections {
            log.warning(
                "few files may be open: raise the limit (LimitNOFILE=)",
                metadata: ["files": "\(quota.room.limit)", "connections": "\(quota.room.connections)"])
        }
        if namespace.isPartial {
            log.notice("in a user namespace that does not map all users: those it does not map are refused")
        }
        log.info(
            "serving",
            metadata: [
                "pages": "\(found.recovered)", "warm": "\(found.recoveredFromRAM)",
                "socket": "\(doors.first?.listener.path ?? "inherited")", "ram": "\(engine.configuration.ramBudget)",
                "disk": "\(engine.configuration.effectiveDiskBudget)",
                "directory": "\(engine.configuration.directory ?? "none")",
            ])
    }

    private func accept(_ door: Door) {
        while true {
            do throws(SystemError) {
                guard let socket = try door.listener.accept(wakeUp: wakeUp) else { return }
                admit(socket, door)
            } catch {
                log.error("accept failed", metadata: ["error": .stringConvertible(error)])
                // Out of descriptors: the wake-up's own wait keeps this from spinning until some are closed.
                if wakeUp.wait(milliseconds: 100) { return }
            }
        }
    }

    private func admit(_ socket: UnixConnection, _ door: Door) {
        // Of a new socket the buffer is empty: what refuses a peer finds room.
        socket.limitWrites(seconds: 1)
        let connection: ClientConnection
        // Counted as administrators see it where whose it is cannot be told.
        var tenant: UInt32 = 0
        do throws(WireError) {
            let peer = try engine.configuration.tenants.identify(socket, at: door, namespace)
            tenant = peer.tenant
            connection = try join(socket, peer)
        } catch {
            engine.countRefusal(error, opcode: Opcode.hello.rawValue, of: tenant)
            log.warning(
                "connection refused",
                metadata: [
                    "uid": "\(socket.peer.uid)", "pid": "\(socket.peer.pid)", "error": .stringConvertible(error),
                ])
            return refuse(socket, error)
        }
        log.debug(
            "connected",
            metadata: [
                "connection": "\(connection.id)", "uid": "\(socket.peer.uid)", "pid": "\(socket.peer.pid)",
            ])
        let id = connection.id
        do throws(SystemError) {
            try connection.start { [self] in forget(id) }
        } catch {
            log.error("no thread for a connection", metadata: ["error": .stringConvertible(error)])
            forget(id)
        }
    }

    private func join(_ socket: UnixConnection, _ peer: Tenants.Peer) throws(WireError) -> ClientConnection {
        let limits = engine.limits
        return try clients.update { (clients) throws(WireError) in
            let ofTenant = clients.connections.values.count { $0.caller.tenant == peer.tenant }
            guard ofTenant < limits.connectionsPerUser else {
                throw WireError(.limitExceeded, "more than \(limits.connectionsPerUser) connections of one user")
            }
            // An administrator must get in to look after a crowded daemon.
            let most = min(limits.connections, quota.room.connections)
            guard clients.connections.count < (peer.isAdministrator ? quota.room.withAdministrators : most) else {
                throw WireError(.limitExceeded, "too many connections")
            }
            // At random, so that no client can count those of others.
            var id: UInt64
            repeat { id = .random(in: 1...999_999) } while clients.connections[id] != nil
            let caller = Caller(
                tenant: peer.tenant, connection: id, isAdministrator: peer.isAdministrator, peer: socket.peer)
            let connection = ClientConnection(
                caller: caller, socket: socket, engine: engine, quota: quota, limits: limits)
            clients.connections[id] = connection
            return connection
        }
    }

    private func forget(_ id: UInt64) { clients.update { $0.connections[id] = nil } }

    private func refuse(_ socket: UnixConnection, _ error: WireError) {
        let body = error.encodedBody()
        let header = FrameHeader(
            opcode: Opcode.hello.rawValue | Opcode.replyBit, id: 0, status: error.code.rawValue,
            bodyLength: UInt32(body.count))
        // A peer that is gone need not hear it.
        try? socket.write([header.encoded[...], body[...]])
        socket.shutdown()
    }
}
