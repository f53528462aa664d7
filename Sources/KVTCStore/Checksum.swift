import CXXHash

/// XXH3-64 of the bytes, the checksum of everything the store keeps.
package func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
    xxh3(bytes.baseAddress, bytes.count, seed)
}
