/// Which conversation each request of a trace belongs to.
///
/// A turn begins with the whole prompt of an earlier one, as far as that filled its blocks. Prompts that have only their beginning in
/// common, such as a system prompt, are conversations of their own.
struct ConversationIndex {
    /// By request.
    private(set) var numbers: [UInt32] = []
    /// How many there are.
    private(set) var count = 0

    init(_ trace: Trace) {
        var seen = [Bool](repeating: false, count: trace.distinctBlocks)
        // The conversation of which a turn ended with the block, where no other had it before.
        var ends: [UInt32: UInt32] = [:]
        for request in trace.requests {
            let blocks = trace.blocks[request.blocks]
            let known = blocks.prefix { seen[Int($0)] }
            let number = known.lazy.reversed().compactMap { ends[$0] }.first ?? UInt32(count)
            if number == count { count += 1 }
            numbers.append(number)
            let full = blocks.prefix(request.inputTokens / trace.blockTokens)
            if full.count > known.count, let last = full.last { ends[last] = number }
            for block in blocks { seen[Int(block)] = true }
        }
    }
}
