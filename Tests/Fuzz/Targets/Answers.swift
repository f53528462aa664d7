import KVTCShared

/// What a server of the shared tier answers, after a byte that says in what pieces it comes: these must not matter.
enum Answers {
    static func run(_ input: UnsafeRawBufferPointer) {
        guard let step = input.first else { return }
        let bytes = UnsafeRawBufferPointer(rebasing: input.dropFirst())
        let whole = read(bytes, step: max(1, bytes.count))
        precondition(whole == read(bytes, step: Int(step) + 1), "pieces are read in another way than the whole")
        for value in whole.values {
            if case .error(let text) = value, let redirect = RedisRedirect(text) {
                precondition((0..<16_384).contains(redirect.slot) && redirect.port > 0)
            }
            if let map = ClusterMap(value, asked: .tcp(host: "asked", port: 1)) {
                for slot in 0..<16_384 { precondition(map[slot].map(map.masters.indices.contains) ?? true) }
            }
        }
    }

    private struct Reading: Equatable {
        var values: [RESPValue] = []
        var failure: RESPReader.Failure?
    }

    private static func read(_ bytes: UnsafeRawBufferPointer, step: Int) -> Reading {
        var (reader, reading) = (RESPReader(largest: 1000), Reading())
        for start in stride(from: 0, to: bytes.count, by: step) {
            let piece = UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + step, bytes.count)])
            do throws(RESPReader.Failure) { try reader.read(piece) { reading.values.append($0) } } catch {
                reading.failure = error
                break
            }
        }
        return reading
    }
}
