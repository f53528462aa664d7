import Glibc
import KVTCProtocol
import KVTCSystem
import Logging

/// One client: a thread that reads frames and one that answers them in order. Reading goes on while an answer is
/// computed or waits for a slow reader, within the limits of the configuration.
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
        var charge: RequestCharge?
    }

    private struct Inbox {
        var items: [Item] = []
        var bytes = 0
        /// Requests not answered yet, the one in work included.
        var open = 0
        var isClosed = false
    }

    let caller: Caller
    let socket: UnixConnection
    var id: UInt64 { caller.connection }
    private let engine: Engine
    private let quota: Quota
    private let inbox = Monitor(Inbox())
    private var limits: DaemonConfiguration.Limits { engine.configuration.limits }

    init(caller: Caller, socket: UnixConnection, engine: Engine, quota: Quota) {
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
            answer()
            socket.shutdown()
            engine.connectionEnded(id)
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

    private func readFrames() {
        var deadline: UInt64? = MonotonicClock.nanoseconds + UInt64(limits.helloSeconds) * 1_000_000_000
        while true {
            var header = FrameHeader(opcode: 0, id: 0, status: 0, bodyLength: 0)
            do throws(ConnectionError) {
                let idle = MonotonicClock.nanoseconds + UInt64(limits.idleSeconds) * 1_000_000_000
                let bytes = try socket.read(count: FrameHeader.byteCount, deadline: deadline ?? idle)
                // 24 bytes always read as a header.
                guard let parsed = try? FrameHeader.parse(bytes) else { return }
                header = parsed.header
                if let fault = parsed.fault ?? tooLarge(header) {
                    put(Item(header: header, body: [], fault: fault, isLast: true))
                    return
                }
                awaitRoom(for: Int(header.bodyLength))
                let charge = quota.takeRequest(
                    Int(header.bodyLength), tenant: caller.tenant, limit: limits.inFlightBytesPerUser)
                let frameDeadline = MonotonicClock.nanoseconds + UInt64(limits.frameSeconds) * 1_000_000_000
                let body = try socket.read(
                    count: Int(header.bodyLength), deadline: deadline.map { min($0, frameDeadline) } ?? frameDeadline)
                if header.opcode == Opcode.hello.rawValue { deadline = nil }
                put(Item(header: header, body: body, fault: overload(), charge: charge))
            } catch {
                if let fault = ClientConnection.fault(error) {
                    put(Item(header: header, body: [], fault: fault, isLast: true))
                }
                return
            }
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
            inbox.items.append(item)
            inbox.bytes += item.body.count
            inbox.open += 1
        }
    }

    // MARK: - Answering

    private func answer() {
        var router = RequestRouter(engine: engine, quota: quota, caller: caller)
        defer { router.end() }
        while let item = next() {
            let outcome = reply(to: item, &router)
            inbox.update { $0.open -= 1 }
            if outcome == .over { break }
        }
        inbox.update { $0.isClosed = true }
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

    private enum Outcome { case goesOn, over }

    private func reply(to item: Item, _ router: inout RequestRouter) -> Outcome {
        do throws(ConnectionError) {
            do throws(RouterError) {
                if let fault = item.fault { throw .refused(fault) }
                try router.answer(item) { (answer) throws(ConnectionError) in try send(item.header, answer) }
                return .goesOn
            } catch {
                switch error {
                case .connection(let lost): throw lost
                case .refused(let fault):
                    engine.countRefusal(fault, opcode: item.header.opcode, caller)
                    engine.log.debug(
                        "request refused",
                        metadata: ["connection": "\(id)", "opcode": "\(item.header.opcode)", "error": "\(fault)"])
                    try send(item.header, .init(status: fault.code.rawValue, fields: fault.encodedBody()))
                    return item.isLast || fault.code.breaksFraming ? .over : .goesOn
                }
            }
        } catch {
            engine.log.debug("connection lost", metadata: ["connection": "\(id)", "error": "\(error)"])
            return .over
        }
    }

    private func send(_ request: FrameHeader, _ answer: RequestRouter.Answer) throws(ConnectionError) {
        let header = FrameHeader(
            opcode: request.opcode | Opcode.replyBit, id: request.id, status: answer.status,
            bodyLength: UInt32(answer.fields.count + answer.payload.count))
        try socket.write(
            [header.encoded[...], answer.fields[...]], then: answer.payload, descriptor: answer.descriptor)
    }
}
