import CCrypto

/// HMAC-SHA256 (RFC 2104) under one key, of which many are computed.
struct KeyedHash: ~Copyable {
    private let context: OpaquePointer
    private static let bytes = FleetSecret.keyBytes

    /// The algorithm, which OpenSSL takes microseconds to find.
    // Justified: OpenSSL's algorithms are constant once fetched, and counted by atomics.
    nonisolated(unsafe) private static let algorithm: OpaquePointer = EVP_MAC_fetch(nil, "HMAC", nil)!

    init(key: [UInt8]) {
        context = EVP_MAC_CTX_new(Self.algorithm)!
        var name = Array("SHA256".utf8CString)
        let isReady = name.withUnsafeMutableBufferPointer { name in
            let parameters = [
                OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name.baseAddress, 0),
                OSSL_PARAM_construct_end(),
            ]
            return EVP_MAC_init(context, key, key.count, parameters)
        }
        precondition(isReady == 1, "libcrypto has no HMAC-SHA256")
    }

    deinit { EVP_MAC_CTX_free(context) }

    /// The digest of all parts, one after the other.
    mutating func digest(_ parts: [UInt8]...) -> [UInt8] {
        // With no key the one there is begins anew.
        EVP_MAC_init(context, nil, 0, nil)
        for part in parts { EVP_MAC_update(context, part, part.count) }
        return [UInt8](unsafeUninitializedCapacity: Self.bytes) { digest, count in
            EVP_MAC_final(context, digest.baseAddress, &count, digest.count)
        }
    }

    static func digest(key: [UInt8], _ bytes: [UInt8]) -> [UInt8] {
        var hash = KeyedHash(key: key)
        return hash.digest(bytes)
    }
}
