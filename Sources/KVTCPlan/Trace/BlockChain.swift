import KVTCStore

/// Cuts prompts into blocks whose hash tells what is in them and everything before.
struct BlockChain {
    let blockTokens: Int
    /// Of text without its tokens: what one takes on average.
    let bytesPerToken: Double

    /// Hashes of the blocks of a prompt that is known by its tokens.
    func hashes(of tokens: [UInt32]) -> [UInt64] {
        tokens.withUnsafeBytes { chain($0, blockBytes: blockTokens * MemoryLayout<UInt32>.size) }
    }

    /// The same of a text, and how many tokens it has, about.
    func hashes(of text: String) -> (tokens: Int, hashes: [UInt64]) {
        var text = text
        return text.withUTF8 { bytes in
            let tokens = max(1, Int((Double(bytes.count) / bytesPerToken).rounded(.up)))
            var hashes = chain(UnsafeRawBufferPointer(bytes), blockBytes: blockBytes)
            // Rounding may make the last block begin where the text ends.
            let count = (tokens - 1) / blockTokens + 1
            while hashes.count < count {
                hashes.append(checksum(UnsafeRawBufferPointer(start: nil, count: 0), seed: hashes.last ?? 0))
            }
            return (tokens, Array(hashes.prefix(count)))
        }
    }

    private var blockBytes: Int { max(1, Int((Double(blockTokens) * bytesPerToken).rounded())) }

    private func chain(_ bytes: UnsafeRawBufferPointer, blockBytes: Int) -> [UInt64] {
        var (hash, hashes) = (UInt64(0), [UInt64]())
        for begin in stride(from: 0, to: bytes.count, by: blockBytes) {
            let block = bytes[begin..<min(begin + blockBytes, bytes.count)]
            hash = checksum(UnsafeRawBufferPointer(rebasing: block), seed: hash)
            hashes.append(hash)
        }
        return hashes
    }
}
