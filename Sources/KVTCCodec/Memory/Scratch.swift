import KVTCModel

/// Memory that grows to what was needed most and is used again: what it held before is lost when it grows.
struct Scratch<Element: BitwiseCopyable>: ~Copyable {
    private(set) var base = UnsafeMutablePointer<Element>.allocate(capacity: 1)
    private var capacity = 1

    /// At least `count` elements, not initialised.
    mutating func reserve(_ count: Int) -> UnsafeMutablePointer<Element> {
        if count > capacity {
            base.deallocate()
            capacity = count + count / 4
            base = .allocate(capacity: capacity)
        }
        return base
    }

    var byteCount: Int { capacity * MemoryLayout<Element>.stride }

    deinit { base.deallocate() }
}
