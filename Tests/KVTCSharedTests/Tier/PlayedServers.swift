import Dispatch
import KVTCSystem
import TestSupport

@testable import KVTCShared

/// A server that holds values in memory and fails as it is told.
final class PlayedServers: FleetServers {
    enum Reaction: Sendable {
        case answer
        case fail(RedisFault)
        /// Nothing until the deadline.
        case silence
        /// The command is carried out, the answer does not come.
        case loseAnswer
        /// Nothing until ``release()``, then the answer.
        case hold
        /// The value that is asked for is changed on its way.
        case damage
    }

    struct State: Sendable {
        var values: [[UInt8]: [UInt8]] = [:]
        var hashes: [[UInt8]: [[UInt8]: [UInt8]]] = [:]
        /// Milliseconds as they were set last.
        var lifetimes: [[UInt8]: Int] = [:]
        var commands: [[String]] = []
        var held: [@Sendable () -> Void] = []
        var isClosed = false
        var react: @Sendable (String, [UInt8]) -> Reaction = { _, _ in .answer }
    }

    let state = Monitor(State())
    private let queue = DispatchQueue(label: "played servers")

    /// Commands that came, each a name and a key.
    func count(_ name: String) -> Int { state.withLock { $0.commands.count { $0[0] == name } } }

    /// Waits until so many commands of the name have come.
    func expect(_ name: String, _ count: Int) {
        _ = state.wait { state in state.commands.count { $0[0] == name } >= count ? true : nil }
    }

    func react(_ reaction: @escaping @Sendable (String, [UInt8]) -> Reaction) { state.update { $0.react = reaction } }

    func release() {
        let held = state.update { state in
            defer { state.held = [] }
            return state.held
        }
        for answer in held { answer() }
    }

    func send(
        _ commands: [RedisCommand], until deadline: UInt64,
        _ done: @escaping @Sendable (Int, Result<RESPValue, RedisFault>) -> Void
    ) {
        for (index, command) in commands.enumerated() { play(command, deadline) { done(index, $0) } }
    }

    func send(
        _ command: RedisCommand, to master: RedisAddress, until deadline: UInt64,
        _ done: @escaping @Sendable (Result<RESPValue, RedisFault>) -> Void
    ) { play(command, deadline, done) }

    func onEachMaster(
        _ command: RedisCommand, until deadline: UInt64,
        _ done: @escaping @Sendable ([(master: RedisAddress, result: Result<RESPValue, RedisFault>)]) -> Void
    ) { play(command, deadline) { done([(.unix(path: "/played"), $0)]) } }

    var masters: [RedisAddress] { [.unix(path: "/played")] }
    var isAway: Bool { false }

    func status() -> [NodeStatus] { [] }

    func close() {
        state.update { $0.isClosed = true }
        release()
    }

    private func play(
        _ command: RedisCommand, _ deadline: UInt64, _ done: @escaping @Sendable (Result<RESPValue, RedisFault>) -> Void
    ) {
        let name = String(decoding: command.words[0], as: UTF8.self)
        let key = command.words.count > 1 ? command.words[1] : []
        let once = Once(done)
        let reaction: Reaction? = state.update { state in
            state.commands.append([name, String(decoding: key, as: UTF8.self)])
            return state.isClosed ? nil : state.react(name, key)
        }
        switch reaction {
        case nil: once.call(.failure(.unreachable))
        // As the client does where nothing can be sent.
        case .fail(let fault) where fault == .open: once.call(.failure(fault))
        case .fail(let fault): queue.async { once.call(.failure(fault)) }
        case .answer: queue.async { [self] in once.call(.success(perform(name, command.words))) }
        case .damage:
            queue.async { [self] in
                var answer = perform(name, command.words)
                if case .bulk(var bytes) = answer, !bytes.isEmpty {
                    bytes[bytes.count / 2] ^= 4
                    answer = .bulk(bytes)
                }
                once.call(.success(answer))
            }
        case .silence, .loseAnswer:
            if case .loseAnswer = reaction { queue.async { [self] in _ = perform(name, command.words) } }
            hold(deadline, once) {}
        case .hold:
            hold(deadline, once) { [self] in
                queue.async { [self] in once.call(.success(perform(name, command.words))) }
            }
        }
    }

    /// Has a command wait for its deadline, for ``release()``, or the end.
    private func hold(_ deadline: UInt64, _ once: Once, _ answer: @escaping @Sendable () -> Void) {
        let isClosed = state.update { state in
            state.held.append { [self] in
                if self.state.withLock({ $0.isClosed }) { once.call(.failure(.unreachable)) } else { answer() }
            }
            return state.isClosed
        }
        if isClosed { return once.call(.failure(.unreachable)) }
        queue.asyncAfter(deadline: DispatchTime(uptimeNanoseconds: deadline)) { once.call(.failure(.timeout)) }
    }

    private func perform(_ name: String, _ words: [[UInt8]]) -> RESPValue {
        func number(_ index: Int) -> Int { Int(String(decoding: words[index], as: UTF8.self))! }
        return state.update { state in
            let value = words.count > 1 ? state.values[words[1]] : nil
            switch name {
            case "GETRANGE":
                return .bulk(Array((value ?? []).dropFirst(number(2)).prefix(number(3) - number(2) + 1)))
            case "GET": return value.map { .bulk($0) } ?? .null
            case "SET":
                state.values[words[1]] = words[2]
                state.lifetimes[words[1]] = words.count > 4 ? number(4) : nil
                return .simple("OK")
            case "PEXPIRE":
                state.lifetimes[words[1]] = value == nil ? nil : number(2)
                return .integer(value == nil ? 0 : 1)
            case "TOUCH": return .integer(value == nil ? 0 : 1)
            case "HSET":
                state.hashes[words[1], default: [:]][words[2]] = words[3]
                return .integer(1)
            case "HGETALL":
                return .array(state.hashes[words[1], default: [:]].flatMap { [.bulk($0.key), .bulk($0.value)] })
            case "UNLINK":
                state.values[words[1]] = nil
                return .integer(value == nil ? 0 : 1)
            default: return .simple("PONG")
            }
        }
    }
}

/// Calls a closure the first time only.
private final class Once: Sendable {
    private let body: Monitor<(@Sendable (Result<RESPValue, RedisFault>) -> Void)?>

    init(_ body: @escaping @Sendable (Result<RESPValue, RedisFault>) -> Void) { self.body = Monitor(body) }

    func call(_ result: Result<RESPValue, RedisFault>) {
        let body = body.update { body in
            defer { body = nil }
            return body
        }
        body?(result)
    }
}
