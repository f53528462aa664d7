extension Trace {
    /// What endless memory would find: the tokens of each request.
    func endlessMemory() -> [Int] {
        var seen = [Bool](repeating: false, count: distinctBlocks)
        return requests.map { request in
            let blocks = blocks[request.blocks]
            let run = blocks.prefix { seen[Int($0)] }.count
            for block in blocks { seen[Int(block)] = true }
            return min(run * blockTokens, request.inputTokens)
        }
    }

    /// Share of the blocks that it finds.
    var endlessRatio: Double {
        Double(endlessMemory().reduce(0) { $0 + ($1 + blockTokens - 1) / blockTokens }) / Double(max(1, blocks.count))
    }
}
