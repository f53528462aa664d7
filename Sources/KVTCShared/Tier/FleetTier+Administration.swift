import KVTCSystem

/// How quickly a server of the fleet answers.
package struct FleetPing: Sendable {
    package var address: RedisAddress
    /// Microseconds there and back, or why there was no answer.
    package var result: Result<Double, RedisFault>
}

/// What a server of the fleet keeps.
package struct FleetUsage: Sendable {
    package var address: RedisAddress
    /// Why it did not say; the rest is zero then.
    package var fault: RedisFault?
    /// Values of this fleet and their bytes; estimates where not all of them were looked at.
    package var values: UInt64 = 0, bytes: UInt64 = 0
    package var isEstimate = false
    /// Bytes that the server uses and may use, 0 for no limit, and what it lets go when they are used up.
    package var usedBytes: UInt64 = 0, mostBytes: UInt64 = 0
    package var policy = ""
}

/// One step of removing what a fleet keeps.
package struct FleetDrop: Sendable {
    /// Values removed in this step.
    package var removed: UInt64 = 0
    /// Where the next one goes on; nil when all is removed.
    package var next: String?
}

extension FleetTier {
    /// How long one question may take, and one step of ``drop(from:)``, in milliseconds.
    private static let patience = 2000
    private static let step: UInt64 = 1_000_000_000
    /// Names that are asked for at a time.
    private static let batch = 1000
    /// Names after which it is estimated how many there are, and values that are measured.
    private static let mostNames = 100_000
    private static let mostMeasured = 256

    /// Asks every server for a sign of life. At once where they are left alone for now.
    package func ping() -> [FleetPing] {
        masters().map { master, fault in
            if let fault { return FleetPing(address: master, result: .failure(fault)) }
            // One after the other, so that each has the way to itself.
            let start = MonotonicClock.nanoseconds
            let result = ask(RedisCommand("PING"), master)
            return FleetPing(
                address: master, result: result.map { _ in Double(MonotonicClock.nanoseconds - start) / 1000 })
        }
    }

    /// What every server keeps. Of a large one a part is looked at.
    package func usage() -> [FleetUsage] {
        masters().map { master, fault in
            if let fault { return FleetUsage(address: master, fault: fault) }
            var usage = FleetUsage(address: master)
            do throws(RedisFault) { try measure(&usage) } catch {
                usage = FleetUsage(address: master, fault: error)
            }
            return usage
        }
    }

    private func measure(_ usage: inout FleetUsage) throws(RedisFault) {
        let master = usage.address
        let info = Self.fields(try ask(RedisCommand("INFO", "memory"), master).get().text ?? "")
        usage.usedBytes = UInt64(info["used_memory"] ?? "") ?? 0
        usage.mostBytes = UInt64(info["maxmemory"] ?? "") ?? 0
        usage.policy = info["maxmemory_policy"] ?? ""
        let all = UInt64(clamping: try ask(RedisCommand("DBSIZE"), master).get().integer ?? 0)
        var (cursor, seen) = ("0", 0)
        var (ours, measured, bytes) = (0, 0, 0)
        repeat {
            let (next, names) = try scan(master, cursor)
            cursor = next
            seen += names.count
            let mine = names.filter { $0.starts(with: names.isEmpty ? [] : everything) }
            ours += mine.count
            for name in mine.prefix(Self.mostMeasured - measured) {
                let length = RedisCommand([Array("STRLEN".utf8), name], key: 1)
                // The index of profiles is no string.
                guard case .success(.integer(let length)) = ask(length, master) else { continue }
                measured += 1
                bytes += Int(clamping: length)
            }
        } while cursor != "0" && seen < Self.mostNames
        usage.isEstimate = cursor != "0" || measured < ours
        let share = cursor == "0" ? 1 : Double(all) / Double(max(1, seen))
        usage.values = UInt64(Double(ours) * max(1, share))
        usage.bytes = measured == 0 ? 0 : UInt64(Double(usage.values) * Double(bytes) / Double(measured))
    }

    /// Removes what this fleet keeps, of all tenants, for about a second.
    /// - Parameter place: what the step before said, nil for the first one.
    package func drop(from place: String?) throws(RedisFault) -> FleetDrop {
        let masters = masters().map(\.address)
        var (index, cursor) = (0, "0")
        if let place {
            // A place is a server and a cursor there. One that is not there any more has its values elsewhere: all over again.
            let parts = place.split(separator: " ", maxSplits: 1)
            if parts.count == 2, let found = masters.firstIndex(where: { "\($0)" == parts[1] }) {
                (index, cursor) = (found, String(parts[0]))
            }
        }
        var drop = FleetDrop()
        let end = MonotonicClock.nanoseconds + Self.step
        while index < masters.count {
            repeat {
                do throws(RedisFault) {
                    let (next, names) = try scan(masters[index], cursor)
                    drop.removed += try remove(names.filter { $0.starts(with: everything) })
                    cursor = next
                } catch {
                    // What was removed is to be told, and the next step meets the fault anew.
                    guard drop.removed > 0 else { throw error }
                    drop.next = "\(cursor) \(masters[index])"
                    return drop
                }
                if cursor != "0", MonotonicClock.nanoseconds >= end {
                    drop.next = "\(cursor) \(masters[index])"
                    return drop
                }
            } while cursor != "0"
            index += 1
        }
        return drop
    }

    private func remove(_ names: [[UInt8]]) throws(RedisFault) -> UInt64 {
        var (removed, fault) = (UInt64(0), RedisFault?.none)
        for result in servers.exchange(names.map { .unlink($0) }, milliseconds: Self.patience) {
            switch result {
            case .success(let answer): removed += UInt64(clamping: answer.integer ?? 0)
            case .failure(let reason): fault = reason
            }
        }
        if let fault, removed == 0 { throw fault }
        return removed
    }

    // MARK: Questions

    /// The masters, and what is wrong with each; of a cluster that can't be reached the servers that were named.
    private func masters() -> [(address: RedisAddress, fault: RedisFault?)] {
        let answers = Monitor<[(master: RedisAddress, result: Result<RESPValue, RedisFault>)]?>(nil)
        servers.onEachMaster(
            RedisCommand("PING"), until: MonotonicClock.nanoseconds + UInt64(Self.patience) * 1_000_000
        ) { all in answers.update { $0 = all } }
        return answers.wait { $0 }!.map { master, result in
            if case .failure(let fault) = result { (master, fault) } else { (master, nil) }
        }
    }

    private var everything: [UInt8] { Array(names.everything.utf8) }

    private func scan(_ master: RedisAddress, _ cursor: String) throws(RedisFault) -> (next: String, names: [[UInt8]]) {
        let answer = try ask(RedisCommand("SCAN", cursor, "COUNT", "\(Self.batch)"), master).get()
        guard case .array(let parts) = answer, parts.count == 2, let next = parts[0].text, let names = parts[1].array
        else { throw .malformed }
        return (next, names.compactMap(\.bytes))
    }

    private func ask(_ command: RedisCommand, _ master: RedisAddress) -> Result<RESPValue, RedisFault> {
        let answer = Monitor<Result<RESPValue, RedisFault>?>(nil)
        servers.send(command, to: master, until: MonotonicClock.nanoseconds + UInt64(Self.patience) * 1_000_000) {
            result in answer.update { $0 = result }
        }
        return answer.wait { $0 }!
    }

    /// Lines of `name:value`.
    private static func fields(_ text: String) -> [String: String] {
        var fields: [String: String] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2 { fields[String(parts[0])] = String(parts[1]) }
        }
        return fields
    }
}
