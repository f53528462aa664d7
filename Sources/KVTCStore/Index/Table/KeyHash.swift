/// A hash of keys, another one each time.
struct KeyHash {
    /// Random, so that a client cannot choose keys that collide.
    private let seed = UInt64.random(in: 0 ... .max)

    func callAsFunction(_ key: StoreKey) -> UInt64 {
        withUnsafeBytes(of: key.words) { checksum($0, seed: seed &+ UInt64(key.tenant)) }
    }
}
