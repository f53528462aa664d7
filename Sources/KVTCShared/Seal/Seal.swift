import CCrypto

/// AES-256-GCM (NIST SP 800-38D) in place: bytes that are hidden, and bytes that are only bound to them.
package enum Seal {
    package static let nonceBytes = 12
    package static let tagBytes = 16
    /// libcrypto counts in Int32.
    private static let piece = 1 << 30

    /// The tag over `bound` and the ciphertext, which `hidden` becomes.
    package static func seal(
        key: [UInt8], nonce: [UInt8], bound: [UnsafeRawBufferPointer], hidden: UnsafeMutableRawBufferPointer
    ) -> [UInt8] {
        let context = start(key, nonce, isSealing: 1)
        defer { EVP_CIPHER_CTX_free(context) }
        for part in bound { update(context, nil, part, EVP_EncryptUpdate) }
        update(context, hidden.baseAddress, UnsafeRawBufferPointer(hidden), EVP_EncryptUpdate)
        var rest: Int32 = 0
        var nothing: UInt8 = 0
        precondition(EVP_EncryptFinal_ex(context, &nothing, &rest) == 1, "libcrypto seals")
        var tag = [UInt8](repeating: 0, count: tagBytes)
        precondition(
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32(tagBytes), &tag) == 1, "a seal has a tag")
        return tag
    }

    /// Turns `hidden` back; false, and what is there then is of no use, when the tag is not theirs.
    static func open(
        key: [UInt8], nonce: [UInt8], tag: [UInt8], bound: [UnsafeRawBufferPointer],
        hidden: UnsafeMutableRawBufferPointer
    ) -> Bool {
        precondition(tag.count == tagBytes)
        let context = start(key, nonce, isSealing: 0)
        defer { EVP_CIPHER_CTX_free(context) }
        for part in bound { update(context, nil, part, EVP_DecryptUpdate) }
        update(context, hidden.baseAddress, UnsafeRawBufferPointer(hidden), EVP_DecryptUpdate)
        var tag = tag
        precondition(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, Int32(tagBytes), &tag) == 1, "a tag is taken")
        var rest: Int32 = 0
        var nothing: UInt8 = 0
        return EVP_DecryptFinal_ex(context, &nothing, &rest) == 1
    }

    /// Bytes that are never the same twice.
    static func randomBytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
            precondition(RAND_bytes(bytes.baseAddress, Int32(count)) == 1, "libcrypto has random bytes")
            initialized = count
        }
    }

    private static func start(_ key: [UInt8], _ nonce: [UInt8], isSealing: Int32) -> OpaquePointer {
        precondition(key.count == FleetSecret.keyBytes && nonce.count == nonceBytes)
        let context = EVP_CIPHER_CTX_new()!
        precondition(
            EVP_CipherInit_ex(context, EVP_aes_256_gcm(), nil, key, nonce, isSealing) == 1, "libcrypto has GCM")
        return context
    }

    private typealias Update = (
        OpaquePointer?, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<Int32>?, UnsafePointer<UInt8>?, Int32
    ) -> Int32

    private static func update(
        _ context: OpaquePointer, _ target: UnsafeMutableRawPointer?, _ bytes: UnsafeRawBufferPointer, _ step: Update
    ) {
        for start in stride(from: 0, to: bytes.count, by: piece) {
            var written: Int32 = 0
            let count = min(piece, bytes.count - start)
            let source = bytes.baseAddress!.advanced(by: start).assumingMemoryBound(to: UInt8.self)
            let place = target?.advanced(by: start).assumingMemoryBound(to: UInt8.self)
            precondition(step(context, place, &written, source, Int32(count)) == 1, "libcrypto goes on")
        }
    }
}
