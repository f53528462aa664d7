/// A buffer for one record, aligned for any device, not initialised. Noncopyable: freed when its only owner is done.
struct RecordBuffer: ~Copyable {
    let memory: UnsafeMutableRawBufferPointer

    init(bytes: Int) {
        memory = .allocate(byteCount: bytes, alignment: 4096)
    }

    deinit { memory.deallocate() }
}
