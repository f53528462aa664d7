import CKVTC
import KVTCClient
import KVTCModel
import KVTCProtocol

/// What a session is opened with, on every connection anew: the caller's options, copied and checked.
struct SessionTerms {
    let socket: String?
    let name: String
    let identity: [UInt8]
    let arenaBytes: Int
    /// Nanoseconds that a call waits at most.
    let patience: UInt64
    var request: OpenSessionRequest
    /// Nil where the profile decides.
    let tokenBytes: Int?

    private static let smallestArena = 1 << 20

    init(_ options: kvtc_options) throws(Failure) {
        guard options.size == MemoryLayout<kvtc_options>.size else {
            throw .invalid(
                field: "options.size",
                "\(options.size), where this library has \(MemoryLayout<kvtc_options>.size): call kvtc_options_init(), with its own header"
            )
        }
        socket = options.socket.map { String(cString: $0) }
        name = options.name.map { String(cString: $0) } ?? "kvtc-c"
        guard let bytes = options.identity, 16...64 ~= options.identity_bytes else {
            throw .invalid(
                field: "options.identity",
                "\(options.identity == nil ? 0 : options.identity_bytes) bytes; 16 to 64 are needed: a digest of the weights and all else "
                    + "that the values depend on")
        }
        identity = Array(UnsafeBufferPointer(start: bytes, count: options.identity_bytes))
        (arenaBytes, patience) = (options.arena_bytes, UInt64(options.timeout_ms) * 1_000_000)
        guard options.timeout_ms > 0 else { throw .invalid(field: "options.timeout_ms", "0; at least 1 is needed") }
        let profile = options.profile.map { Array(UnsafeBufferPointer(start: $0, count: 32)) } ?? []
        let tensors = try Self.tensors(options)
        guard !tensors.isEmpty || !profile.isEmpty else {
            throw .invalid(field: "options.tensors", "none, and no profile that would say them")
        }
        let layout = PageLayout(
            element: try Self.value("options.element", options.element),
            order: try Self.value("options.order", options.order),
            grouping: try Self.value("options.grouping", options.grouping), valueTransposed: options.value_transposed)
        request = OpenSessionRequest(
            name: name, profile: profile, tensors: tensors, layout: layout, pageTokens: options.page_tokens,
            policy: try Policy(options.policy))
        request.policy.code = try Self.codingTime(options.code)
        tokenBytes = tensors.isEmpty ? nil : tensors.reduce(0) { $0 + $1.width } * layout.element.bytes
    }

    private static func tensors(_ options: kvtc_options) throws(Failure) -> [TensorGeometry] {
        let table = Array(
            UnsafeBufferPointer(
                start: options.rope_frequencies,
                count: options.rope_frequencies == nil ? 0 : options.rope_frequency_count))
        let given = UnsafeBufferPointer(
            start: options.tensors, count: options.tensors == nil ? 0 : options.tensor_count)
        var result: [TensorGeometry] = []
        for tensor in given {
            var rotary: Rotary?
            if tensor.rotary_style != 0 {
                let pairs = Int(tensor.rotary_dims) / 2
                guard pairs <= table.count else {
                    throw .invalid(
                        field: "options.rope_frequencies",
                        "\(table.count), where RoPE turns \(pairs) pairs of a head of layer \(tensor.layer)")
                }
                rotary = Rotary(
                    style: try value("options.tensors.rotary_style", tensor.rotary_style),
                    offset: Int(tensor.rotary_offset),
                    dims: Int(tensor.rotary_dims), inverseFrequencies: Array(table.prefix(pairs)))
            }
            result.append(
                TensorGeometry(
                    layer: Int(tensor.layer), role: try value("options.tensors.role", tensor.role),
                    heads: Int(tensor.heads),
                    headDim: Int(tensor.head_dim), rotary: rotary))
        }
        guard !result.isEmpty else { return [] }
        do {
            _ = try Geometry(tensors: result)
        } catch {
            throw .invalid(field: "options.tensors", "\(error)")
        }
        return result
    }

    /// Nil where that is for the daemon to say.
    private static func codingTime(_ raw: UInt8) throws(Failure) -> CodingTime? {
        let times: [CodingTime?] = [nil, .atOnce, .underPressure, .idle]
        guard Int(raw) < times.count else { throw .invalid(field: "options.code", "\(raw) has no meaning") }
        return times[Int(raw)]
    }

    /// A value of an enumeration that has no default for numbers that it does not know.
    static func value<Value: RawRepresentable>(_ field: String, _ raw: UInt8) throws(Failure) -> Value
    where Value.RawValue == UInt8 {
        guard let value = Value(rawValue: raw) else { throw .invalid(field: field, "\(raw) has no meaning") }
        return value
    }

    /// Connects and opens the session, with as much arena as the daemon gives.
    func connect(until end: UInt64) throws(ClientError) -> LibrarySession.Link {
        let seconds = Int(max(1, (patience + 999_999_999) / 1_000_000_000))
        let client = try Client(socketPath: socket, name: name, timeoutSeconds: seconds, until: end)
        let session = try ClientSession(client, request, identity: identity)
        if let tokenBytes, tokenBytes != session.tokenBytes {
            throw .violation("a token has \(tokenBytes) bytes here and \(session.tokenBytes) for the daemon")
        }
        return LibrarySession.Link(client: client, session: session, arena: try arena(client, session))
    }

    private func arena(_ client: Client, _ session: ClientSession) throws(ClientError) -> ClientArena? {
        var wanted = Int(clamping: min(UInt64(clamping: arenaBytes), client.server.maxArena))
        // One page must fit, or there is no use of it.
        let least = max(Self.smallestArena, session.tokenBytes * session.pageTokens)
        while wanted >= least {
            do throws(ClientError) {
                return try client.makeArena(bytes: wanted)
            } catch {
                guard case .refused(let reason) = error, reason.code == .limitExceeded else { throw error }
                wanted /= 2
            }
        }
        return nil
    }
}

extension Policy {
    init(_ policy: kvtc_policy) throws(Failure) {
        let mode: Mode = try SessionTerms.value("policy.mode", policy.mode)
        guard Policy.modes.contains(mode) else {
            throw .invalid(field: "policy.mode", "\(policy.mode) is no mode of a policy")
        }
        self.init(
            sink: policy.sink, window: policy.window, mode: mode,
            qualityKind: try SessionTerms.value("policy.quality_kind", policy.quality_kind), priority: policy.priority,
            pin: policy.pin,
            quality: policy.quality, ttlSeconds: policy.ttl_seconds, near: policy.near == 0 ? nil : policy.near,
            distortionLimit: policy.distortion_limit == 0 ? nil : policy.distortion_limit)
    }
}
