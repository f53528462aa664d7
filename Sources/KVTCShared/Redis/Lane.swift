import KVTCSystem
import Synchronization

/// What waits for the thread of a connection.
final class Lane: Sendable {
    /// Commands that one may owe, and bytes of them: beyond that more are refused.
    static let mostCommands = 131_072
    static let mostBytes = 128 << 20

    enum End { case retired, closed }

    private struct Box {
        var requests: [RedisRequest] = []
        var end: End?
    }

    let kind: RedisLane
    let wake: WakeUp
    private let box = Mutex(Box())
    private let commands = Atomic(0)
    private let bytes = Atomic(0)

    init(_ kind: RedisLane) throws(SystemError) {
        self.kind = kind
        wake = try WakeUp()
    }

    /// Commands that are neither answered nor given up.
    var owed: Int { commands.load(ordering: .relaxed) }

    /// Hands commands to the thread; nil, or why it takes none of them.
    func put(_ requests: [RedisRequest]) -> RedisFault? {
        let size = requests.reduce(0) { $0 + $1.command.byteCount }
        let fault: RedisFault? = box.withLock { box in
            guard box.end == nil else { return .unreachable }
            guard owed + requests.count <= Self.mostCommands,
                owed == 0 || bytes.load(ordering: .relaxed) + size <= Self.mostBytes
            else { return .busy }
            commands.add(requests.count, ordering: .relaxed)
            bytes.add(size, ordering: .relaxed)
            box.requests += requests
            return nil
        }
        if fault == nil { wake.signal() }
        return fault
    }

    /// The thread takes what there is.
    func take() -> (requests: [RedisRequest], end: End?) {
        box.withLock { box in
            defer { box.requests = [] }
            return (box.requests, box.end)
        }
    }

    /// The thread makes a command itself.
    func owes(_ request: RedisRequest) {
        commands.add(1, ordering: .relaxed)
        bytes.add(request.command.byteCount, ordering: .relaxed)
    }

    /// The thread is done with a command.
    func settled(_ request: RedisRequest) {
        commands.subtract(1, ordering: .relaxed)
        bytes.subtract(request.command.byteCount, ordering: .relaxed)
    }

    /// Takes nothing more; the thread ends once it owes nothing, or at once.
    func end(_ how: End) {
        box.withLock { if $0.end != .closed { $0.end = how } }
        wake.signal()
    }
}
