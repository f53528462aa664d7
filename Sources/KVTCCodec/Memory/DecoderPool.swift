import Synchronization

/// Decoders that wait for a page, with the memory that earlier pages needed.
final class DecoderPool: Sendable {
    private static let limit = 64
    private let idle = Mutex<[PageDecoder]>([])

    func take() -> PageDecoder? { idle.withLock { $0.popLast() } }

    func giveBack(_ decoder: PageDecoder) {
        idle.withLock { if $0.count < DecoderPool.limit { $0.append(decoder) } }
    }
}
