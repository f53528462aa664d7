import KVTCShared
import KVTCSystem

extension MonotonicClock {
    /// That many seconds from now.
    static func after(_ seconds: Double) -> UInt64 { nanoseconds + UInt64(seconds * 1e9) }
}

extension RedisClient {
    /// Sends commands and waits for what comes of all of them.
    func ask(_ commands: [RedisCommand], seconds: Double = 10) -> [Result<RESPValue, RedisFault>] {
        let answers = Monitor<[Int: Result<RESPValue, RedisFault>]>([:])
        send(commands, until: MonotonicClock.after(seconds)) { index, result in
            answers.update {
                precondition($0[index] == nil, "answered twice")
                $0[index] = result
            }
        }
        return answers.wait { all in all.count == commands.count ? commands.indices.map { all[$0]! } : nil }!
    }

    /// Sends one command.
    func ask(_ command: RedisCommand, seconds: Double = 10) -> Result<RESPValue, RedisFault> {
        ask([command], seconds: seconds)[0]
    }

    /// Asks for something of every master.
    func askMasters(_ command: RedisCommand, seconds: Double = 10) -> [(
        master: RedisAddress, result: Result<RESPValue, RedisFault>
    )] {
        let answers = Monitor<[(master: RedisAddress, result: Result<RESPValue, RedisFault>)]?>(nil)
        onEachMaster(command, until: MonotonicClock.after(seconds)) { all in answers.update { $0 = all } }
        return answers.wait { $0 }!
    }

    /// Repeats a command until it has the answer that is waited for; nil when that takes more than the seconds.
    func ask(_ command: RedisCommand, seconds: Double = 20, until isGood: (Result<RESPValue, RedisFault>) -> Bool)
        -> Bool
    {
        let limit = MonotonicClock.after(seconds)
        while MonotonicClock.nanoseconds < limit {
            if isGood(ask(command, seconds: 0.2)) { return true }
        }
        return false
    }
}

/// What a client reports.
final class Events: Sendable {
    private let all = Monitor<[String]>([])

    func take(_ event: RedisEvent) { all.update { $0.append("\(event)") } }

    /// Waits for a line that contains the text.
    func wait(_ text: String, seconds: Double = 20) -> String? {
        all.wait(until: MonotonicClock.after(seconds)) { $0.first { $0.contains(text) } }
    }

    var lines: [String] { all.withLock { $0 } }
}
