/// Which master of a cluster has which slots.
package struct ClusterMap: Equatable {
    /// Those that have slots, in the order of their first one.
    package private(set) var masters: [RedisAddress] = []
    /// An index into the masters for each slot, -1 where no server has it.
    private var owners = [Int16](repeating: -1, count: HashSlot.count)

    static let mostMasters = 1024

    package subscript(slot: Int) -> Int? { owners[slot] < 0 ? nil : Int(owners[slot]) }

    /// Reads the answer to CLUSTER SLOTS: `[[first, last, [host, port, …], [replica], …], …]`; nil for anything else.
    /// - Parameter asked: Who answered: a server without a host of its own is at the same.
    package init?(_ value: RESPValue, asked: RedisAddress) {
        guard let ranges = value.array else { return nil }
        for range in ranges {
            guard let parts = range.array, parts.count >= 3,
                let first = parts[0].integer, let last = parts[1].integer, 0 <= first, first <= last,
                last < HashSlot.count,
                let master = parts[2].array, master.count >= 2,
                let port = master[1].integer.flatMap(UInt16.init(exactly:)), port > 0,
                let address = ClusterMap.address(master[0], port, asked)
            else { return nil }
            for slot in Int(first)...Int(last) { guard assign(slot, address) else { return nil } }
        }
    }

    /// Notes that a slot has moved; false where there are too many masters.
    @discardableResult
    mutating func assign(_ slot: Int, _ master: RedisAddress) -> Bool {
        // The last one most of the time.
        var index = masters.last == master ? masters.count - 1 : masters.firstIndex(of: master)
        if index == nil {
            guard masters.count < Self.mostMasters else { return false }
            masters.append(master)
            index = masters.count - 1
        }
        owners[slot] = Int16(index!)
        return true
    }

    private static func address(_ host: RESPValue, _ port: UInt16, _ asked: RedisAddress) -> RedisAddress? {
        let text: String
        switch host {
        case .null: text = ""
        default:
            guard let given = host.text else { return nil }
            text = given
        }
        return address(text, port, asked)
    }

    /// A server as another names it; "" and "?" mean that other's own host.
    static func address(_ host: String, _ port: UInt16, _ asked: RedisAddress) -> RedisAddress? {
        guard case .tcp(let own, _) = asked else { return nil }
        if host.isEmpty || host == "?" { return .tcp(host: own, port: port) }
        return isHost(host) ? .tcp(host: host, port: port) : nil
    }

    /// Whether it may be a host name or a numeric address.
    static func isHost(_ text: some StringProtocol) -> Bool {
        RedisURL.isName(text) || RedisURL.isIPv6(text)
    }
}
