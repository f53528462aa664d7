/// A small trace in Mooncake's form, the same for the same seed: conversations that come back, each time with all that was said
/// and a little more, as agents and chats do.
public enum Conversations {
    /// Lines of JSON.
    /// - Parameters:
    ///   - blockTokens: tokens of a block.
    ///   - conversations: how many go on side by side.
    public static func lines(requests: Int, conversations: Int, blockTokens: Int, seed: UInt64) -> [String] {
        var generator = SeededGenerator(seed: seed)
        // All begin with the same two blocks.
        var blocks = [[Int]](repeating: [0, 1], count: conversations)
        var next = 2
        return (0..<requests).map { number in
            // Some come back far more often than others.
            let chosen =
                Int.random(in: 0..<conversations, using: &generator)
                * Int.random(in: 0..<conversations, using: &generator)
                / conversations
            if blocks[chosen].count > 24 { blocks[chosen] = [0, 1] }
            // What was the last block, perhaps not full, is another one with more in it.
            if blocks[chosen].count > 2 { blocks[chosen].removeLast() }
            let added = Int.random(in: 1...5, using: &generator)
            blocks[chosen] += next..<next + added
            next += added
            let tokens = blocks[chosen].count * blockTokens - Int.random(in: 0..<blockTokens, using: &generator)
            let ids = blocks[chosen].map { "\($0)" }.joined(separator: ", ")
            return
                #"{"timestamp": \#(number * 250), "input_length": \#(tokens), "output_length": 20, "hash_ids": [\#(ids)]}"#
        }
    }
}
