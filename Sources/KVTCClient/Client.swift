import Glibc
import KVTCProtocol
import KVTCSystem
import Synchronization

/// A request under way.
public struct Pending<Request: WireRequest>: Sendable {
    /// The id that its replies carry.
    public let id: UInt64
}

/// A connection to kvtcd. Several threads may use it; each waits for its own replies.
public final class Client: Sendable {
    /// Where the packaged daemon listens.
    public static let defaultSocket = "/run/kvtcd/kvtcd.sock"

    struct Part {
        var header: FrameHeader
        var body: [UInt8]
        var descriptor: Int32?
    }

    struct Inbox {
        // Parts that came while another request's were awaited. An id without an entry is not awaited.
        var waiting: [UInt64: [Part]] = [:]
        var failure: ClientError?
    }

    private let connection: UnixConnection
    private let timeoutSeconds: Int
    private let nextID = Atomic<UInt64>(1)
    /// When every wait ends, on ``MonotonicClock``.
    private let end: Atomic<UInt64>
    private let inbox = Mutex(Inbox())
    /// What the daemon said about itself and its limits.
    public let server: HelloReply

    /// The path given, else the environment's KVTC_SOCKET, else ``defaultSocket``, or that of the user's own daemon
    /// where only that is there.
    public static func socketPath(_ given: String? = nil) -> String {
        if let given { return given }
        if let variable = getenv("KVTC_SOCKET"), variable.pointee != 0 { return String(cString: variable) }
        // A daemon of one's own, started without root and without a socket path.
        guard access(defaultSocket, F_OK) != 0 else { return defaultSocket }
        let places = [("XDG_RUNTIME_DIR", ""), ("HOME", "/.cache")].compactMap { place -> String? in
            getenv(place.0).map { String(cString: $0) + place.1 }
        }
        let own = places.first { $0.hasPrefix("/") }.map { $0 + "/kvtcd/kvtcd.sock" }
        return own.flatMap { access($0, F_OK) == 0 ? $0 : nil } ?? defaultSocket
    }

    /// Connects to the socket at a path and says HELLO. A wait ends after the time given, and all of them by `end`.
    public convenience init(
        socketPath: String? = nil, name: String = "kvtc-swift", timeoutSeconds: Int = 60, until end: UInt64 = .max
    ) throws(ClientError) {
        let path = Client.socketPath(socketPath)
        let connection: UnixConnection
        do {
            let patience = min(UInt64(max(timeoutSeconds, 1)) * 1000, Client.left(until: end) / 1_000_000)
            connection = try UnixConnection.connect(to: path, milliseconds: max(1, Int64(patience)))
        } catch {
            throw ClientError.unreachable(path: path, reason: String(cString: strerror(error.code)))
        }
        try self.init(connection: connection, name: name, timeoutSeconds: timeoutSeconds, until: end)
    }

    /// Says HELLO on a connected socket.
    public init(
        connection: UnixConnection, name: String, timeoutSeconds: Int = 60, until end: UInt64 = .max
    ) throws(ClientError) {
        self.connection = connection
        self.timeoutSeconds = timeoutSeconds
        self.end = Atomic(end)
        Client.limitWrites(connection, timeoutSeconds, until: end)
        let hello = HelloRequest(features: Wire.features, client: name)
        do {
            try connection.write(Client.frame(hello, id: 0))
            let own = MonotonicClock.nanoseconds + UInt64(max(timeoutSeconds, 1)) * 1_000_000_000
            let part = try Client.readPart(connection, deadline: min(own, end))
            server = try Client.decode(part, HelloRequest.self)
        } catch let error as ConnectionError {
            throw Client.translate(error, .hello, timeoutSeconds)
        } catch let error as ClientError {
            throw error
        } catch {
            throw .violation("\(error)")
        }
    }

    deinit { connection.shutdown() }

    /// Has all waits for the daemon from here on end by then (on `MonotonicClock`), whatever time each may take by itself.
    public func limitWaits(until end: UInt64) {
        self.end.store(end, ordering: .relaxed)
        Client.limitWrites(connection, timeoutSeconds, until: end)
    }

    private static func limitWrites(_ connection: UnixConnection, _ seconds: Int, until end: UInt64) {
        connection.limitWrites(nanoseconds: min(UInt64(max(seconds, 1)) * 1_000_000_000, left(until: end)))
    }

    /// Nanoseconds, at least 1.
    private static func left(until end: UInt64) -> UInt64 {
        let now = MonotonicClock.nanoseconds
        return end > now ? end - now : 1
    }

    /// Sends a request without waiting for its reply.
    public func send<Request: WireRequest>(_ request: Request) throws(ClientError) -> Pending<Request> {
        let id = nextID.wrappingAdd(1, ordering: .relaxed).oldValue
        let frame = Client.frame(request, id: id)
        let bodyBytes = frame.reduce(0) { $0 + $1.count } - FrameHeader.byteCount
        guard bodyBytes <= Int(server.maxBody) else {
            throw .refused(WireError(.tooLarge, "a body of \(bodyBytes) bytes; the daemon takes \(server.maxBody)"))
        }
        let failure = inbox.withLock { inbox in
            inbox.waiting[id] = []
            return inbox.failure
        }
        if let failure { throw failure }
        do {
            try connection.write(frame)
        } catch {
            throw Client.translate(error, Request.opcode, timeoutSeconds)
        }
        return Pending(id: id)
    }

    /// Waits for the reply of a request that is answered in one part.
    public func receive<Request: WireRequest>(_ pending: Pending<Request>) throws(ClientError) -> Request.Reply {
        let part = try nextPart(pending.id, Request.opcode)
        guard !part.header.hasMore else { throw .violation("a reply in parts to \(Request.opcode)") }
        return try Client.decode(part, Request.self)
    }

    /// Sends a request and waits for its reply.
    public func call<Request: WireRequest>(_ request: Request) throws(ClientError) -> Request.Reply {
        try receive(try send(request))
    }

    /// Sends a request whose reply comes in parts of one kind, hands on all but the last and returns that.
    public func call<Request: WireRequest>(
        _ request: Request, _ part: (Request.Reply) -> Void
    ) throws(ClientError) -> Request.Reply {
        let pending = try send(request)
        while true {
            let received = try nextPart(pending.id, Request.opcode)
            let reply = try Client.decode(received, Request.self)
            guard received.header.hasMore else { return reply }
            part(reply)
        }
    }

    /// Pulls pages, decoded (`PullRequest`) or as they are stored (`PullBlocksRequest`), and hands on every part as it comes.
    public func pull<Request: WireRequest>(
        _ request: Request, _ part: (PullPart) -> Void
    ) throws(ClientError) -> PullReply where Request.Reply == PullReply {
        let pending = try send(request)
        while true {
            let received = try nextPart(pending.id, Request.opcode)
            guard received.header.hasMore else { return try Client.decode(received, Request.self) }
            do {
                part(try PullPart(body: received.body))
            } catch {
                throw ClientError.violation("\(error)")
            }
        }
    }

    /// Asks for shared memory of this connection.
    public func makeArena(bytes: Int) throws(ClientError) -> ClientArena {
        let pending = try send(ArenaRequest(bytes: UInt64(bytes)))
        let part = try nextPart(pending.id, .arena)
        let descriptor = part.descriptor.map { FileDescriptor(owning: $0) }
        let reply = try Client.decode(part, ArenaRequest.self)
        guard let descriptor, let length = Int(exactly: reply.bytes) else {
            throw .violation("an ARENA reply without a descriptor")
        }
        do {
            return ClientArena(number: reply.arena, memory: try Arena(owning: descriptor, byteCount: length))
        } catch {
            throw .violation("an arena that can't be used: \(error)")
        }
    }

    /// The file of a session's profile, in memory that nothing can change any more.
    public func profileFile(session: UInt32) throws(ClientError) -> FileDescriptor {
        let pending = try send(ProfileFileRequest(session: session))
        let part = try nextPart(pending.id, .profileFile)
        let descriptor = part.descriptor.map { FileDescriptor(owning: $0) }
        _ = try Client.decode(part, ProfileFileRequest.self)
        guard let descriptor else { throw .violation("a PROFILE_FILE reply without a descriptor") }
        return descriptor
    }

    /// Hands over the bytes of a profile file, which the daemon keeps under the name; for administrators. Returns what the
    /// daemon says of it, as JSON.
    public func storeProfile(_ file: UnsafeRawBufferPointer, name: String) throws(ClientError) -> String {
        guard UInt64(file.count) <= server.maxArena else {
            throw .refused(
                WireError(
                    .tooLarge, field: "length",
                    "a profile of \(file.count) bytes, where limits.arena is \(server.maxArena): raise it, or put the file into "
                        + "the daemon's profile directory yourself and load it by its name"))
        }
        let arena = try makeArena(bytes: file.count)
        guard arena.memory.write(file, offset: 0) else { throw .violation("an arena that is smaller than asked for") }
        return try call(
            StoreProfileRequest(arena: arena.number, offset: 0, length: UInt64(file.count), name: name)
        ).json
    }

    /// Throws where the connection has ended, and the memory of its arenas may be zeros.
    public func requireOpen() throws(ClientError) {
        if connection.hasEnded { throw .connectionLost("closed by the daemon") }
    }

    /// Ends the connection, and with it its sessions and arenas.
    public func close() {
        connection.shutdown()
    }

    private func nextPart(_ id: UInt64, _ opcode: Opcode) throws(ClientError) -> Part {
        let own = MonotonicClock.nanoseconds + UInt64(max(timeoutSeconds, 1)) * 1_000_000_000
        let deadline = min(own, end.load(ordering: .relaxed))
        while true {
            // One frame at a time under the lock, so that a thread whose part another one read finds it soon.
            let result: Result<Part?, ClientError> = inbox.withLock { inbox in
                if let part = inbox.waiting[id]?.first {
                    inbox.waiting[id]?.removeFirst()
                    if !part.header.hasMore { inbox.waiting[id] = nil }
                    return .success(part)
                }
                if let failure = inbox.failure { return .failure(failure) }
                do {
                    let part = try Client.readPart(connection, deadline: deadline)
                    return .success(Client.file(part, for: id, in: &inbox))
                } catch {
                    let failure = (error as? ConnectionError).map { Client.translate($0, opcode, timeoutSeconds) }
                    inbox.failure = failure ?? (error as? ClientError) ?? .violation("\(error)")
                    connection.shutdown()
                    return .failure(inbox.failure!)
                }
            }
            if let part = try result.get() { return part }
        }
    }

    /// Keeps a part for its request, or returns it when it is for the given one.
    private static func file(_ part: Part, for id: UInt64, in inbox: inout Inbox) -> Part? {
        if part.header.id == id {
            if !part.header.hasMore { inbox.waiting[id] = nil }
            return part
        }
        if inbox.waiting[part.header.id] != nil {
            inbox.waiting[part.header.id]?.append(part)
        } else {
            if let descriptor = part.descriptor { Glibc.close(descriptor) }
            // An error that no request asked for comes before the daemon closes, and explains it.
            if let error = part.error { inbox.failure = .refused(error) }
        }
        return nil
    }

    private static func readPart(_ connection: UnixConnection, deadline: UInt64) throws -> Part {
        let (bytes, descriptor) = try connection.readWithDescriptor(count: FrameHeader.byteCount, deadline: deadline)
        do {
            let (header, fault) = try FrameHeader.parse(bytes)
            if let fault { throw ClientError.violation("\(fault)") }
            let body = try connection.read(count: Int(header.bodyLength), deadline: deadline)
            return Part(header: header, body: body, descriptor: descriptor)
        } catch {
            if let descriptor { Glibc.close(descriptor) }
            throw error
        }
    }

    private static func decode<Request: WireRequest>(
        _ part: Part, _ request: Request.Type
    ) throws(ClientError) -> Request.Reply {
        if let error = part.error { throw .refused(error) }
        do {
            return try Request.Reply(body: part.body)
        } catch {
            throw ClientError.violation("\(error)")
        }
    }

    /// The frame in two parts, so that pages in it are not copied.
    private static func frame<Request: WireRequest>(_ request: Request, id: UInt64) -> [ArraySlice<UInt8>] {
        let body = request.written
        let length = UInt32(clamping: body.fields.count + body.payload.count)
        let header = FrameHeader(opcode: Request.opcode.rawValue, id: id, status: 0, bodyLength: length)
        return [(header.encoded + body.fields)[...], body.payload]
    }

    private static func translate(_ error: ConnectionError, _ opcode: Opcode, _ seconds: Int) -> ClientError {
        switch error {
        case .closed(let partial): .connectionLost(partial ? "closed inside a reply" : "closed by the daemon")
        case .timeout: .timedOut(opcode, seconds: seconds)
        case .system(let error): .connectionLost("\(error)")
        }
    }
}

extension Client.Part {
    /// The error that the part carries, if it does.
    var error: WireError? {
        guard header.errorStatus != 0 else { return nil }
        do {
            return try WireError(status: header.errorStatus, body: body)
        } catch {
            return WireError(.internalError, "status \(header.errorStatus) with an unreadable body")
        }
    }
}
