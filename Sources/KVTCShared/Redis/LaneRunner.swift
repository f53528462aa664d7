import CLinux
import DequeModule
import Glibc
import KVTCSystem

/// The thread of a connection: connects when there is something to send, writes commands, matches answers to them in order, and gives up
/// what is late. All of it is the thread's own, and it waits nowhere but in poll.
final class LaneRunner {
    private enum Flight {
        case command(RedisRequest)
        /// Part of making the connection.
        case greeting
        /// Its answer means nothing to anyone any more, or never did.
        case ignored
    }

    private static let readAtOnce = 64 << 10
    /// Bytes to read, or to gather for sending, before other things get their turn.
    private static let inTurn = 1 << 20

    private let node: Node
    private let lane: Lane
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: LaneRunner.readAtOnce, alignment: 16)
    private var waiting: Deque<RedisRequest> = []
    private var flights: Deque<Flight> = []
    private var dialler: Dialler?
    private var socket: RedisSocket?
    /// Answers to the greeting that are still owed, and until when.
    private var greetings = 0
    private var greetingLimit: UInt64 = 0
    private var outgoing = Outgoing()
    private var reader: RESPReader
    /// When bytes moved last, and when some came.
    private var movedAt: UInt64 = 0
    private var receivedAt: UInt64 = 0
    /// No command's deadline is before this.
    private var earliest = UInt64.max
    private var isReady = false
    private var hasMore = false

    init(_ node: Node, _ lane: Lane) {
        (self.node, self.lane) = (node, lane)
        reader = RESPReader(largest: node.settings.largestValue)
    }

    deinit { buffer.deallocate() }

    /// Commands that may be sent and not answered, so that what is late in long answers is not asked for at all.
    private var window: Int { lane.kind == .lookup ? Lane.mostCommands : 64 }

    /// Serves until the lane ends.
    func run() {
        // Writing to a connection that is gone is an error here, not a signal.
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        switch lane.kind {
        case .lookup: Thread.answerPromptly()
        case .fetch: break
        case .store: Thread.giveWay()
        }
        while true {
            let mail = lane.take()
            waiting.append(contentsOf: mail.requests)
            for request in mail.requests { earliest = min(earliest, request.deadline) }
            if mail.end == .closed { return close() }
            if mail.end == .retired, waiting.isEmpty,
                flights.allSatisfy({ if case .command = $0 { false } else { true } })
            {
                return
            }
            // What has come is read before anything is given up: it may be this thread that was late.
            if socket != nil { receive() }
            let now = MonotonicClock.nanoseconds
            expire(now)
            probe(now)
            connect(now)
            if socket != nil { send(now) }
            pause()
        }
    }

    private func close() {
        drop(.unreachable, "the client is closed")
        for request in waiting { finish(request, .failure(.unreachable)) }
    }

    // MARK: Time

    private func probe(_ now: UInt64) {
        guard lane.kind == .lookup, node.takeProbe(now: now) else { return }
        let limit = now + node.settings.patience
        earliest = min(earliest, limit)
        let ping = RedisRequest(RedisCommand("PING"), since: now, deadline: limit, isInternal: true) { [node] in
            node.probed($0)
        }
        lane.owes(ping)
        waiting.prepend(ping)
    }

    /// Until when a command is waited for.
    private func limit(_ request: RedisRequest) -> UInt64 {
        lane.kind == .fetch ? request.limit(lastByte: receivedAt) : request.deadline
    }

    private func expire(_ now: UInt64) {
        guard now >= earliest else { return }
        earliest = .max
        var late: [RedisRequest] = []
        for index in flights.indices {
            guard case .command(let request) = flights[index] else { continue }
            if limit(request) <= now {
                late.append(request)
                flights[index] = .ignored
            } else {
                earliest = min(earliest, limit(request))
            }
        }
        if waiting.contains(where: { limit($0) <= now }) {
            late += waiting.filter { limit($0) <= now }
            waiting.removeAll { limit($0) <= now }
        }
        for request in waiting { earliest = min(earliest, limit(request)) }
        for request in late { fail(request, .timeout, "no answer in time", now) }
    }

    private var silenceLimit: UInt64? {
        socket == nil || greetings > 0 || (flights.isEmpty && outgoing.count == 0)
            ? nil : movedAt + node.settings.patience
    }

    private func pause() {
        if hasMore || (socket == nil && dialler == nil && !waiting.isEmpty) { return }
        var sets = [pollfd(fd: lane.wake.raw, events: Int16(POLLIN), revents: 0)]
        var limit = earliest
        if let dialler {
            limit = min(limit, dialler.nextLimit)
            if dialling.descriptor >= 0 {
                sets.append(pollfd(fd: dialling.descriptor, events: Int16(dialling.events), revents: 0))
            }
        } else if let socket {
            let events = POLLIN | (outgoing.count > 0 ? POLLOUT : 0)
            sets.append(pollfd(fd: socket.raw, events: Int16(events), revents: 0))
            limit = min(limit, silenceLimit ?? .max)
            if greetings > 0 { limit = min(limit, greetingLimit) }
        }
        if lane.kind == .lookup, let probe = node.nextProbe { limit = min(limit, probe) }
        let now = MonotonicClock.nanoseconds
        let ready = clinux_poll(&sets, sets.count, limit == .max ? -1 : Int64(clamping: limit - min(limit, now)))
        isReady = ready > 0 && sets.count > 1 && sets[1].revents != 0
        if ready > 0, sets[0].revents != 0 { lane.wake.clear() }
    }

    // MARK: Connecting

    private var dialling: (descriptor: Int32, events: Int32) = (-1, 0)

    private func connect(_ now: UInt64) {
        if socket == nil, dialler == nil, !waiting.isEmpty {
            if node.isOpen, !waiting.contains(where: \.isInternal) {
                let all = waiting
                waiting = []
                for request in all { finish(request, .failure(.open)) }
                return
            }
            dialler = Dialler(node.address, node.settings, now: now) { [wake = lane.wake] in wake.signal() }
        }
        guard let dialler else { return }
        defer { isReady = false }
        switch dialler.step(now: now, isReady: isReady) {
        case .waiting(let descriptor, let events): dialling = (descriptor, events)
        case .failed(let fault, let reason):
            self.dialler = nil
            couldNotConnect(fault, reason)
        case .connected(let made):
            (greetingLimit, self.dialler) = (dialler.limit, nil)
            (socket, outgoing, movedAt) = (made, Outgoing(), now)
            reader = RESPReader(largest: node.settings.largestValue)
            for command in node.settings.greeting {
                outgoing.append(command)
                flights.append(.greeting)
                greetings += 1
            }
        }
    }

    private func couldNotConnect(_ fault: RedisFault, _ reason: String) {
        node.couldNotConnect(fault, reason)
        let all = waiting
        waiting = []
        for request in all { finish(request, .failure(fault)) }
    }

    /// Ends the connection: what was sent has no answer.
    private func drop(_ fault: RedisFault, _ reason: String) {
        let lost = flights
        let wasGreeting = greetings > 0
        (socket, dialler, outgoing, flights, greetings, hasMore) = (nil, nil, Outgoing(), [], 0, false)
        if wasGreeting { couldNotConnect(fault, reason) }
        let now = MonotonicClock.nanoseconds
        var fault = fault
        for case .command(let request) in lost {
            fail(request, fault, reason, now)
            // It is the first answer that could not be read; of the others nothing is known.
            if fault == .malformed || fault == .oversize { fault = .unreachable }
        }
    }

    // MARK: Commands and answers

    private func send(_ now: UInt64) {
        if greetings > 0, now >= greetingLimit {
            return drop(.unreachable, "no answer to the first commands within \(node.settings.connectMilliseconds) ms")
        }
        while greetings == 0, flights.count < window, outgoing.count < Self.inTurn, let request = waiting.popFirst() {
            if flights.isEmpty { movedAt = now }
            if request.isAsking {
                outgoing.append(RedisCommand("ASKING"))
                flights.append(.ignored)
            }
            outgoing.append(request.command)
            flights.append(.command(request))
        }
        let (sent, end) = outgoing.flush(socket!)
        if sent > 0 {
            movedAt = now
            node.sent(sent)
        }
        if let (fault, reason) = end { drop(fault, reason) }
    }

    private func receive() {
        hasMore = false
        var read = 0
        while let socket {
            switch socket.receive(buffer) {
            case .later:
                if let limit = silenceLimit, MonotonicClock.nanoseconds >= limit {
                    drop(.timeout, "the server is silent")
                }
                return
            case .ended(let fault, let reason): return drop(fault, reason)
            case .bytes(let count):
                read += count
                movedAt = MonotonicClock.nanoseconds
                receivedAt = movedAt
                node.received(count)
                take(UnsafeRawBufferPointer(rebasing: buffer[..<count]), movedAt)
                if read >= Self.inTurn {
                    hasMore = true
                    return
                }
            }
        }
    }

    private func take(_ bytes: UnsafeRawBufferPointer, _ now: UInt64) {
        var values: [RESPValue] = []
        var failure: RESPReader.Failure?
        do throws(RESPReader.Failure) { try reader.read(bytes) { values.append($0) } } catch { failure = error }
        for value in values {
            // One answer may have ended the connection, and with it what comes after.
            guard socket != nil else { return }
            switch flights.popFirst() {
            case nil: return drop(.malformed, "an answer to no question")
            case .ignored: continue
            case .greeting:
                if case .error(let text) = value { return drop(RedisFault(greeting: text), text) }
                greetings -= 1
                if greetings == 0 { node.connected(now: now) }
            case .command(let request): answered(request, value, now)
            }
        }
        switch failure {
        case nil: break
        case .malformed: drop(.malformed, "what the server says is not RESP")
        case .oversize: drop(.oversize, "a value of more than \(node.settings.largestValue) bytes")
        }
    }

    private func answered(_ request: RedisRequest, _ value: RESPValue, _ now: UInt64) {
        guard case .error(let text) = value else {
            node.answered(lane.kind, request, now: now)
            return finish(request, .success(value))
        }
        if !request.isInternal, let redirect = RedisRedirect(text), node.sendOn(request, redirect) {
            node.answered(lane.kind, request, now: now)
            return lane.settled(request)
        }
        fail(request, RedisFault(answer: text), text, now)
    }

    private func fail(_ request: RedisRequest, _ fault: RedisFault, _ reason: String, _ now: UInt64) {
        node.failed(lane.kind, request, fault, reason, now: now)
        finish(request, .failure(fault))
    }

    private func finish(_ request: RedisRequest, _ result: Result<RESPValue, RedisFault>) {
        lane.settled(request)
        request.done(result)
    }
}
