import Glibc
import KVTCProtocol
import KVTCSystem
import Logging

/// One client: a thread that reads frames, one that answers them in order, and a third, once it is needed, for what takes as long
/// as the disk. Reading goes on while an answer is computed or waits for a slow reader, within the limits of the
/// configuration.
final class ClientConnection: Sendable {
    /// A frame to answer.
    struct Item: Sendable {
        var header: FrameHeader
        var body: [UInt8]
        /// Set for a frame that is refused as such.
        var fault: WireError?
        /// Whether the connection ends with the answer.
        var isLast = false
        /// Counts the body against the tenant's quota while the item is there.
        var charge: QuotaCharge?
    }

    private struct Inbox {
        var items: [Item] = []
        var bytes = 0
        /// Requests not answered yet, the one in work included.
        var open = 0
        /// Nothing more comes.
        var isClosed = false
        /// Nothing more can be sent, or may be.
        var isLost = false
        var hasGreeted = false
        /// When the last answer owed was given.
        var idleSince = MonotonicClock.nanoseconds
    }

    let caller: Caller
    let socket: UnixConnection
    var id: UInt64 { caller.connection }
    private let engine: Engine
    private let quota: Quota
    private let inbox = Monitor(Inbox())
    /// Those of the time it began: the client was told of some.
    private let limits: DaemonConfiguration.Limits

    init(
        caller: Caller, socket: UnixConnection, engine: Engine, quota: Quota, limits: DaemonConfiguration.Limits
    ) {
        self.limits = limits
        self.caller = caller
        self.socket = socket
        self.engine = engine
        self.quota = quota
    }

    /// Starts both threads; `ended` is called when the connection is over and everything it held is given back.
    func start(ended: @escaping @Sendable () -> Void) throws(SystemError) {
        socket.limitWrites(seconds: limits.writeSeconds)
        let answering = try Thread.start(name: "kvtc-answer") { [self] in
            Thread.answerPromptly()
            let slow = answer()
            // A client that only stopped sending gets its answers first.
            let isLost = inbox.withLock { $0.isLost }
            if !isLost { slow?.stop() }
            socket.shutdown()
            engine.connectionEnded(id)
            if isLost { slow?.stop() }
            ended()
        }
        answering.detach()
        do throws(SystemError) {
            try Thread.start(name: "kvtc-read") { [self] in
                Thread.answerPromptly()
                readFrames()
                inbox.update { $0.isClosed = true }
            }.detach()
        } catch {
            inbox.update { $0.isClosed = true }
            throw error
        }
    }

    /// Waits until nothing is owed to the client, or the deadline passes.
    func awaitIdle(until deadline: UInt64) { _ = inbox.wait(until: deadline) { $0.open == 0 ? true : nil } }

    /// Ends the connection; both threads come to their end.
    func close() { socket.shutdown() }

    // MARK: - Reading

    private static func nanoseconds(_ seconds: Int) -> UInt64 { UInt64(seconds) * 1_000_000_000 }

    private func readFrames() {
        let hello = MonotonicClock.nanoseconds + Self.nanoseconds(limits.helloSeconds)
        while true {
            var header = FrameHeader(opcode: 0, id: 0, status: 0, bodyLength: 0)
            do throws(ConnectionError) {
                guard let greeting = try awaitFrame(hello) else { throw .timeout }
                let frame = MonotonicClock.nanoseconds + Self.nanoseconds(limits.frameSeconds)
                let bytes = try socket.read(count: FrameHeader.byteCount, deadline: min(frame, greeting))
                // 24 bytes always read as a header.
                guard let parsed = try? FrameHeader.parse(bytes) else { return }
                header = parsed.header
                if let fault = parsed.fault ?? tooLarge(header) {
                    put(Item(header: header, body: [], fault: fault, isLast: true))
                    return
                }
                let before = MonotonicClock.nanoseconds
                awaitRoom(for: Int(header.bodyLength))
                let charge = quota.takeRequest(
                    Int(header.bodyLength), tenant: caller.tenant, limit: limits.inFlightBytesPerUser,
                    until: greeting == .max ? nil : greeting)
                guard let charge else { throw .timeout }
                // Not the client's time.
                let waited = MonotonicClock.nanoseconds - before
                let body = try socket.read(count: Int(header.bodyLength), deadline: min(frame + waited, greeting))
                put(Item(header: header, body: body, fault: overload(), charge: charge))
                // Only then it is known which time limits hold.
                if header.opcode == Opcode.hello.rawValue {
                    _ = inbox.wait { $0.open == 0 || $0.isClosed ? true : nil }
                }
            } catch {
                if let fault = ClientConnection.fault(error) {
                    put(Item(header: header, body: [], fault: fault, isLast: true))
                }
                return
            }
        }
    }

    /// Waits for the first byte of a frame. Gives the time until which all of it has to be there for the sake of HELLO; nil when
    /// the time for a frame is over.
    private func awaitFrame(_ hello: UInt64) throws(ConnectionError) -> UInt64? {
        while true {
            let now = MonotonicClock.nanoseconds
            let (greeting, deadline) = inbox.withLock { inbox -> (UInt64, UInt64) in
                guard inbox.hasGreeted else { return (hello, hello) }
                // Who waits for an answer is not idle.
                let since = inbox.open > 0 ? now : inbox.idleSince
                return (.max, since + Self.nanoseconds(limits.idleSeconds))
            }
            guard deadline > now else { return nil }
            if try socket.awaitInput(until: deadline) { return greeting }
        }
    }

    private static func fault(_ error: ConnectionError) -> WireError? {
        switch error {
        case .timeout: WireError(.timeout, "the frame did not arrive in time")
        case .system(let error) where error.code == EBADMSG:
            WireError(.invalidField, field: "descriptors", "the daemon takes no file descriptors; it makes the arenas")
        case .closed(partial: true): WireError(.truncated, "the connection ended inside a frame")
        case .closed(partial: false), .system: nil
        }
    }

    private func tooLarge(_ header: FrameHeader) -> WireError? {
        guard Int(header.bodyLength) > limits.bodyBytes else { return nil }
        return WireError(.tooLarge, field: "bodyLength", "\(header.bodyLength) is over \(limits.bodyBytes)")
    }

    private func overload() -> WireError? {
        let open = inbox.withLock { $0.open }
        // One more than the limit: an answer counts as given only after it is sent, when the client may have asked anew.
        guard open > limits.inFlight else { return nil }
        return WireError(.limitExceeded, "more than \(limits.inFlight) requests unanswered")
    }

    // A client that does not read its answers is not read from either: its frames must not pile up here.
    private func awaitRoom(for bytes: Int) {
        let limit = 2 * limits.bodyBytes
        let items = 2 * limits.inFlight
        _ = inbox.wait { inbox -> Bool? in
            inbox.isClosed || (inbox.items.count < items && (inbox.bytes == 0 || inbox.bytes + bytes <= limit))
                ? true : nil
        }
    }

    private func put(_ item: Item) {
        inbox.update { inbox in
            // It would not be answered, and what waits here counts against the tenant.
            guard !inbox.isClosed else { return }
            inbox.items.append(item)
            inbox.bytes += item.body.count
            inbox.open += 1
        }
    }

    // MARK: - Answering

    /// Gives the thread that answers what takes long, if there is one.
    private func answer() -> WorkPool? {
        var router = RequestRouter(engine: engine, quota: quota, caller: caller, limits: limits)
        var slow: WorkPool?
        while let item = next() {
            do throws(RouterError) {
                if let fault = item.fault { throw .refused(fault) }
                guard
                    let rest = try router.answer(
                        item, { (part) throws(ConnectionError) in try send(item.header, part) })
                else {
                    settle(router.hasGreeted)
                    continue
                }
                if slow == nil { slow = try? WorkPool(threads: 1, name: "kvtc-slow") }
                guard let slow else {
                    finish(item, rest)
                    continue
                }
                slow.submit(.urgent) { [self] in finish(item, rest) }
            } catch {
                let goesOn = refuse(item, error)
                settle(router.hasGreeted)
                if !goesOn { break }
            }
        }
        // Nothing is wrong with the client, which may have yet to read what it has been told is there.
        if engine.isStopping { router.leaveArenas() }
        inbox.update { inbox in
            inbox.isClosed = true
            // The reader may be waiting for the quota that these hold, and a stop for what is owed.
            inbox.open -= inbox.items.count
            (inbox.items, inbox.bytes) = ([], 0)
        }
        return slow
    }

    private func finish(_ item: Item, _ rest: RequestRouter.Remainder) {
        defer { settle(true) }
        guard !inbox.withLock({ $0.isLost }) else { return }
        do throws(RouterError) {
            try rest { (part) throws(ConnectionError) in try send(item.header, part) }
        } catch {
            if !refuse(item, error) { socket.shutdown() }
        }
    }

    private func settle(_ hasGreeted: Bool) {
        inbox.update { inbox in
            inbox.open -= 1
            inbox.hasGreeted = hasGreeted
            if inbox.open == 0 { inbox.idleSince = MonotonicClock.nanoseconds }
        }
    }

    private func next() -> Item? {
        let taken = inbox.wait { inbox -> Item?? in
            if !inbox.items.isEmpty {
                let item = inbox.items.removeFirst()
                inbox.bytes -= item.body.count
                return .some(item)
            }
            return inbox.isClosed ? .some(nil) : nil
        }
        // Room was made: the reader may be waiting for it.
        inbox.update { _ in }
        return taken.flatMap { $0 }
    }

    /// Answers with the error; false when the connection is over.
    private func refuse(_ item: Item, _ error: RouterError) -> Bool {
        do throws(ConnectionError) {
            switch error {
            case .connection(let lost): throw lost
            case .refused(let fault):
                engine.countRefusal(fault, opcode: item.header.opcode, of: caller.tenant)
                engine.log.debug(
                    "request refused",
                    metadata: [
                        "connection": "\(id)", "opcode": "\(item.header.opcode)",
                        "error": .stringConvertible(fault),
                    ])
                try send(item.header, .init(status: fault.code.rawValue, fields: fault.encodedBody()))
                guard item.isLast || fault.code.breaksFraming else { return true }
            }
        } catch {
            engine.log.debug("connection lost", metadata: ["connection": "\(id)", "error": "\(error)"])
        }
        inbox.update { $0.isLost = true }
        return false
    }

    private func send(_ request: FrameHeader, _ answer: RequestRouter.Answer) throws(ConnectionError) {
        let header = FrameHeader(
            opcode: request.opcode | Opcode.replyBit, id: request.id, status: answer.status,
            bodyLength: UInt32(answer.fields.count + answer.payload.count))
        try socket.write(
            [header.encoded[...], answer.fields[...]], then: answer.payload, descriptor: answer.descriptor)
    }
}
