import CXXHash
import KVTCModel

extension Geometry {
    /// XXH3-64 over every number of the geometry; equal geometries have equal hashes on every machine.
    var hash: UInt64 { numbers.withUnsafeBytes { xxh3($0.baseAddress, $0.count, 0) } }
}
