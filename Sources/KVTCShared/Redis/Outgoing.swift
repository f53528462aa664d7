import DequeModule

/// Bytes that wait to be sent. Small words are gathered; large ones go from where they are.
struct Outgoing {
    private static let large = 16 << 10
    private static let gathered = 64 << 10

    private var chunks: Deque<[UInt8]> = []
    /// Bytes of the first chunk that are gone.
    private var offset = 0
    private var isLastOpen = false
    /// Bytes in all.
    private(set) var count = 0

    mutating func append(_ command: RedisCommand) {
        gather("*\(command.words.count)\r\n".utf8)
        for word in command.words {
            gather("$\(word.count)\r\n".utf8)
            if word.count < Self.large {
                gather(word)
            } else {
                chunks.append(word)
                count += word.count
                isLastOpen = false
            }
            gather("\r\n".utf8)
        }
    }

    private mutating func gather(_ bytes: some Collection<UInt8>) {
        if !isLastOpen || chunks[chunks.count - 1].count >= Self.gathered {
            chunks.append([])
            isLastOpen = true
        }
        chunks[chunks.count - 1].append(contentsOf: bytes)
        count += bytes.count
    }

    /// Sends what the connection takes: how many bytes, and what ended it, if anything did.
    mutating func flush(_ socket: RedisSocket) -> (sent: Int, end: (RedisFault, String)?) {
        var all = 0
        while let first = chunks.first {
            let outcome = first.withUnsafeBytes { socket.send(UnsafeRawBufferPointer(rebasing: $0[offset...])) }
            switch outcome {
            case .later: return (all, nil)
            case .ended(let fault, let reason): return (all, (fault, reason))
            case .bytes(let sent):
                all += sent
                count -= sent
                offset += sent
                guard offset == first.count else { continue }
                chunks.removeFirst()
                offset = 0
                if chunks.isEmpty { isLastOpen = false }
            }
        }
        return (all, nil)
    }
}
