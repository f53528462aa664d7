// The functions of kvtc.h, which says what they promise. Pointers are the caller's: valid, and of the counts that go with them.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import CKVTC
import KVTCClient
import KVTCModel
import KVTCProtocol

/// A session as C has it: one reference, from `kvtc_open` to `kvtc_close`.
private func session(_ handle: OpaquePointer) -> LibrarySession {
    // Justified: kvtc.h gives a handle's use after kvtc_close() no meaning.
    Unmanaged<LibrarySession>.fromOpaque(UnsafeRawPointer(handle)).takeUnretainedValue()
}

private func status(_ body: () throws(Failure) -> Void) -> kvtc_status {
    do throws(Failure) {
        try body()
        return KVTC_OK
    } catch {
        LastError.set(error.message)
        return error.status
    }
}

/// Pages and keys by the caller's count, which has to be there where it is not 0.
private func array<Item>(_ field: String, _ items: UnsafePointer<Item>?, _ count: Int) throws(Failure)
    -> UnsafeBufferPointer<Item>
{
    guard count >= 0, items != nil || count == 0 else { throw .invalid(field: field, "NULL, with a count of \(count)") }
    return UnsafeBufferPointer(start: items, count: count)
}

private func pageKeys(_ keys: UnsafePointer<kvtc_key>?, _ count: Int) throws(Failure) -> [PageKey] {
    try array("keys", keys, count).map { PageKey($0) }
}

private let noError = StaticString("")
private let version = StaticString("0.1.0")

@c @implementation public func kvtc_error() -> UnsafePointer<CChar> {
    LastError.text ?? UnsafeRawPointer(noError.utf8Start).assumingMemoryBound(to: CChar.self)
}

@c @implementation public func kvtc_version() -> UnsafePointer<CChar> {
    UnsafeRawPointer(version.utf8Start).assumingMemoryBound(to: CChar.self)
}

@c @implementation public func kvtc_fill_tensors(
    _ tensors: UnsafeMutablePointer<kvtc_tensor>, _ layers: UInt16, _ heads: UInt16, _ headDim: UInt16, _ style: UInt8
) {
    for layer in 0..<layers {
        let (key, value) = (2 * Int(layer), 2 * Int(layer) + 1)
        tensors[key] = kvtc_tensor(
            layer: layer, heads: heads, head_dim: headDim, rotary_offset: 0, rotary_dims: style == 0 ? 0 : headDim,
            role: UInt8(KVTC_ROLE_KEY), rotary_style: style)
        tensors[value] = kvtc_tensor(
            layer: layer, heads: heads, head_dim: headDim, rotary_offset: 0, rotary_dims: 0,
            role: UInt8(KVTC_ROLE_VALUE),
            rotary_style: UInt8(KVTC_ROPE_NONE))
    }
}

@c @implementation public func kvtc_options_init(_ options: UnsafeMutablePointer<kvtc_options>) {
    let policy = Policy()
    var made = kvtc_options()
    made.size = MemoryLayout<kvtc_options>.size
    made.element = UInt8(KVTC_F16)
    made.page_tokens = 64
    made.policy = kvtc_policy(
        sink: policy.sink, window: policy.window, ttl_seconds: policy.ttlSeconds, quality: policy.quality,
        distortion_limit: 0, near: 0,
        mode: UInt8(KVTC_LOSSLESS), quality_kind: UInt8(KVTC_RATIO), priority: policy.priority, pin: policy.pin)
    made.arena_bytes = 64 << 20
    made.timeout_ms = 5000
    options.pointee = made
}

@c @implementation public func kvtc_open(
    _ options: UnsafePointer<kvtc_options>, _ result: UnsafeMutablePointer<OpaquePointer?>?
) -> kvtc_status {
    result?.pointee = nil
    return status { () throws(Failure) in
        guard let result else { throw .invalid(field: "session", "NULL") }
        let made = LibrarySession(try SessionTerms(options.pointee))
        func hand(_ session: LibrarySession) {
            result.pointee = OpaquePointer(Unmanaged.passRetained(session).toOpaque())
        }
        do throws(Failure) {
            try made.perform { (_) throws(ClientError) in }
            hand(made)
        } catch {
            if error.status == KVTC_UNAVAILABLE { hand(made) }
            throw error
        }
    }
}

@c @implementation public func kvtc_close(_ handle: OpaquePointer?) {
    guard let handle else { return }
    session(handle).close()
    Unmanaged<LibrarySession>.fromOpaque(UnsafeRawPointer(handle)).release()
}

@c @implementation public func kvtc_token_bytes(_ handle: OpaquePointer) -> Int { session(handle).tokenBytes }

@c @implementation public func kvtc_page_keys(
    _ tokens: UnsafePointer<Int32>, _ count: Int, _ pageTokens: UInt32, _ profile: UnsafePointer<UInt8>?,
    _ parent: UnsafePointer<kvtc_key>?, _ keys: UnsafeMutablePointer<kvtc_key>
) -> kvtc_status {
    status { () throws(Failure) in
        guard pageTokens > 0 else { throw .invalid(field: "page_tokens", "0; at least 1 is needed") }
        let size = Int(pageTokens)
        let profile =
            profile.map { Array(UnsafeBufferPointer(start: $0, count: 32)) } ?? [UInt8](repeating: 0, count: 32)
        var before = parent.map { withUnsafeBytes(of: $0.pointee) { Array($0) } } ?? [UInt8](repeating: 0, count: 32)
        for page in 0..<count / size {
            before = PageKeys.next(
                after: before, UnsafeBufferPointer(start: tokens + page * size, count: size), profile: profile)
            withUnsafeMutableBytes(of: &keys[page]) { $0.copyBytes(from: before) }
        }
    }
}

@c @implementation public func kvtc_lookup(
    _ handle: OpaquePointer, _ keys: UnsafePointer<kvtc_key>, _ count: Int, _ leaseMs: UInt32,
    _ leadingRun: UnsafeMutablePointer<Int>,
    _ lease: UnsafeMutablePointer<UInt64>?, _ residence: UnsafeMutablePointer<UInt8>?
) -> kvtc_status {
    leadingRun.pointee = 0
    lease?.pointee = 0
    for index in 0..<max(0, count) { residence?[index] = UInt8(KVTC_ABSENT) }
    return status { () throws(Failure) in
        let keys = try pageKeys(keys, count)
        let found = try session(handle).perform { (link) throws(ClientError) in
            try link.client.call(
                LookupRequest(session: link.session.number, leaseMs: lease == nil ? 0 : leaseMs, keys: keys))
        }
        guard found.residence.count == count, found.leadingRun <= count else {
            throw .client(.violation("\(found.residence.count) places for \(count) keys"))
        }
        leadingRun.pointee = Int(found.leadingRun)
        lease?.pointee = found.lease
        for (index, place) in found.residence.enumerated() { residence?[index] = place.rawValue }
    }
}

@c @implementation public func kvtc_release(_ handle: OpaquePointer, _ lease: UInt64) -> kvtc_status {
    status { () throws(Failure) in
        guard lease != 0 else { return }
        try session(handle).perform { (link) throws(ClientError) in
            do throws(ClientError) {
                _ = try link.client.call(ReleaseRequest(lease: lease))
            } catch {
                // It has ended by itself, or with the connection that it was of.
                guard case .refused(let reason) = error, reason.code == .unknownLease else { throw error }
            }
        }
    }
}

@c @implementation public func kvtc_push(
    _ handle: OpaquePointer, _ pages: UnsafePointer<kvtc_page>, _ count: Int, _ outcomes: UnsafeMutablePointer<UInt8>?
) -> kvtc_status {
    var made = [UInt8](repeating: UInt8(KVTC_NOT_SENT), count: max(0, count))
    defer { for (index, outcome) in made.enumerated() { outcomes?[index] = outcome } }
    return status { () throws(Failure) in try session(handle).push(try array("pages", pages, count), &made) }
}

@c @implementation public func kvtc_pull(
    _ handle: OpaquePointer, _ keys: UnsafePointer<kvtc_key>, _ count: Int, _ lease: UInt64, _ layerStep: UInt16,
    _ place: kvtc_place,
    _ context: UnsafeMutableRawPointer?, _ outcomes: UnsafeMutablePointer<UInt8>
) -> kvtc_status {
    var made = [UInt8](repeating: UInt8(KVTC_MISS), count: max(0, count))
    defer { for (index, outcome) in made.enumerated() { outcomes[index] = outcome } }
    return status { () throws(Failure) in
        try session(handle).pull(
            try array("keys", keys, count), lease: lease, layerStep: layerStep,
            { index, part, bytes in
                if let start = bytes.baseAddress {
                    place(context, index, part.layerBegin, part.layerEnd, start, bytes.count)
                }
            }, &made)
    }
}

@c @implementation public func kvtc_prefetch(
    _ handle: OpaquePointer, _ keys: UnsafePointer<kvtc_key>, _ count: Int
) -> kvtc_status {
    status { () throws(Failure) in
        let keys = try pageKeys(keys, count)
        try session(handle).perform { (link) throws(ClientError) in
            _ = try link.client.call(PrefetchRequest(session: link.session.number, keys: keys))
        }
    }
}

@c @implementation public func kvtc_truncate(_ handle: OpaquePointer, _ tokens: UInt32) -> kvtc_status {
    status { () throws(Failure) in
        try session(handle).perform { (link) throws(ClientError) in _ = try link.session.truncate(to: Int(tokens)) }
    }
}

@c @implementation public func kvtc_set_policy(_ handle: OpaquePointer, _ policy: UnsafePointer<kvtc_policy>)
    -> kvtc_status
{
    status { () throws(Failure) in try session(handle).setPolicy(try Policy(policy.pointee)) }
}

@c @implementation public func kvtc_flush(_ handle: OpaquePointer) -> kvtc_status {
    status { () throws(Failure) in
        try session(handle).perform { (link) throws(ClientError) in
            _ = try link.client.call(FlushRequest(session: link.session.number))
        }
    }
}

@c @implementation public func kvtc_drop(_ handle: OpaquePointer, _ keys: UnsafePointer<kvtc_key>, _ count: Int)
    -> kvtc_status
{
    status { () throws(Failure) in
        let keys = try pageKeys(keys, count)
        // To the daemon a list without keys is all pages.
        guard !keys.isEmpty else { return }
        try session(handle).perform { (link) throws(ClientError) in
            _ = try link.client.call(DropRequest(session: link.session.number, keys: keys))
        }
    }
}
