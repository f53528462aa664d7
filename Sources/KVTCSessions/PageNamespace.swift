import CCrypto
import KVTCCodec
import KVTCModel
import struct KVTCStore.StoreKey

/// Everything that decides whether a page is the one asked for, besides its tenant and the client's key. Pages are kept
/// under the client's key XOR the namespace's salt, so those of another identity, geometry, profile or element type never
/// meet, and both are kept.
package struct PageNamespace: Hashable, Sendable {
    private let salt: SIMD4<UInt64>

    /// The namespace of pages of an identity that a codec makes and reads. A block that needs a profile is of no use to a
    /// session without, so the profile is part of it. Frequencies of rotation are, bit by bit.
    package init(identity: [UInt8], codec: PageCodec, element: Element) {
        var bytes = Array("kvtc-namespace-v1".utf8)
        let profile = codec.profile?.id.bytes ?? [UInt8](repeating: 0, count: 32)
        withUnsafeBytes(of: UInt32(identity.count).littleEndian) { bytes += $0 }
        bytes += identity + profile + [element.rawValue]
        codec.geometry.numbers.map(\.littleEndian).withUnsafeBytes { bytes += $0 }
        var digest = SIMD4<UInt64>()
        withUnsafeMutableBytes(of: &digest) {
            _ = SHA256(bytes, bytes.count, $0.bindMemory(to: UInt8.self).baseAddress)
        }
        salt = digest
    }

    /// What the store knows a page by that the client knows by these 32 bytes, four little-endian words.
    package func key(_ page: SIMD4<UInt64>, tenant: UInt32) -> StoreKey { StoreKey(tenant: tenant, words: page ^ salt) }

    /// What the client knows a page by.
    package func page(_ key: StoreKey) -> SIMD4<UInt64> { key.words ^ salt }
}

/// The namespaces that a tenant's sessions used last.
package struct RecentNamespaces: Sendable {
    /// Dropping keys without naming a session looks under so many.
    package static let limit = 64
    /// The one used last at the end.
    package private(set) var all: [PageNamespace] = []

    package init() {}

    package mutating func use(_ namespace: PageNamespace) {
        all.removeAll { $0 == namespace }
        if all.count == RecentNamespaces.limit { all.removeFirst() }
        all.append(namespace)
    }
}
