/// Which of a server's connections a command takes, so that what is short does not wait behind what is long.
public enum RedisLane: Int, Sendable, CaseIterable {
    /// Questions with short answers.
    case lookup
    /// Questions with long answers, which are waited for beyond their deadline while bytes come, ten times as long at most.
    case fetch
    /// Long commands with short answers.
    case store
}

/// A command, and the key by which a cluster knows its server.
public struct RedisCommand: Sendable {
    /// The name and the arguments. They are sent from where they are, not copied.
    public let words: [[UInt8]]
    /// Which of the words is the key; nil where any server may answer.
    public let key: Int?
    /// The connection.
    public let lane: RedisLane

    /// A command of these words.
    public init(_ words: [[UInt8]], key: Int? = nil, lane: RedisLane = .lookup) {
        precondition(
            !words.isEmpty && (key.map(words.indices.contains) ?? true),
            "a command has a name, and its key is one of its words")
        (self.words, self.key, self.lane) = (words, key, lane)
    }

    /// A command of these words without a key.
    public init(_ words: String...) { self.init(words.map { Array($0.utf8) }) }

    private init(_ name: String, _ key: [UInt8], _ arguments: [[UInt8]] = [], lane: RedisLane = .lookup) {
        self.init([Array(name.utf8), key] + arguments, key: 1, lane: lane)
    }

    /// The whole value: bulk or null.
    public static func get(_ key: [UInt8]) -> RedisCommand { RedisCommand("GET", key, lane: .fetch) }

    /// Bytes of a value, both ends included: bulk, empty where there is no such key.
    public static func getRange(_ key: [UInt8], _ range: ClosedRange<Int>) -> RedisCommand {
        RedisCommand("GETRANGE", key, [decimal(range.lowerBound), decimal(range.upperBound)])
    }

    /// Stores a value, until it expires where a time is given.
    public static func set(_ key: [UInt8], _ value: [UInt8], milliseconds: Int? = nil) -> RedisCommand {
        RedisCommand("SET", key, [value] + (milliseconds.map { [Array("PX".utf8), decimal($0)] } ?? []), lane: .store)
    }

    /// Has a value expire that long from now: 1, or 0 where there is none.
    public static func expire(_ key: [UInt8], milliseconds: Int) -> RedisCommand {
        RedisCommand("PEXPIRE", key, [decimal(milliseconds)])
    }

    /// Removes a value: how many there were.
    public static func unlink(_ key: [UInt8]) -> RedisCommand { RedisCommand("UNLINK", key) }

    /// Counts as a use of the value: how many there were.
    public static func touch(_ key: [UInt8]) -> RedisCommand { RedisCommand("TOUCH", key) }

    /// How many there are of it: 0 or 1.
    public static func exists(_ key: [UInt8]) -> RedisCommand { RedisCommand("EXISTS", key) }

    private static func decimal(_ number: Int) -> [UInt8] { Array(String(number).utf8) }

    /// Bytes of its words.
    var byteCount: Int { words.reduce(0) { $0 + $1.count } }

    /// The slot of a cluster that it belongs to.
    var slot: Int? { key.map { HashSlot.of(words[$0]) } }
}
