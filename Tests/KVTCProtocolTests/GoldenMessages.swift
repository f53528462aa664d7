import KVTCModel
import KVTCProtocol

/// The messages of Tests/Golden/wire.json, written down a second time as Swift values.
enum Golden {
    static func key(_ n: Int) -> PageKey { PageKey((0..<32).map { UInt8((n * 32 + $0) % 256) })! }

    static let fullPolicy = Policy(
        sink: 4, window: 128, mode: .transform, qualityKind: .ratio, priority: 128, pin: true, quality: 20,
        ttlSeconds: 3600, protected: [PositionRange(begin: 10, end: 20), PositionRange(begin: 300, end: 301)])
    static let leanPolicy = Policy(
        sink: 0, window: 0, mode: .lossless, qualityKind: .distortion, priority: 0, quality: 0.0078125)
    static let boundedPolicy = Policy(
        quality: 20, protected: [PositionRange(begin: 10, end: 20)], near: 0.001953125, distortionLimit: 0.0625,
        keepsOutliers: false)
    static let nearPolicy = Policy(
        sink: 0, window: 64, qualityKind: .distortion, quality: 0.03125, near: 0.00390625)
    static let profile = (224...255).reversed().map { UInt8($0) }
    static let tensors = [
        TensorGeometry(
            layer: 0, role: .key, heads: 2, headDim: 8,
            rotary: Rotary(style: .halfSplit, dims: 4, inverseFrequencies: [1, 0.5])),
        TensorGeometry(layer: 0, role: .value, heads: 2, headDim: 8),
        TensorGeometry(
            layer: 1, role: .key, heads: 2, headDim: 8,
            rotary: Rotary(style: .interleaved, offset: 4, dims: 4, inverseFrequencies: [1, 0.0625])),
        TensorGeometry(layer: 1, role: .value, heads: 2, headDim: 8),
    ]
    static let block = ArraySlice("KVTB".utf8)
    static let lease: UInt64 = 0xAB00_0000_0000_0001

    static let messages: [String: any WireMessage] = [
        "hello": HelloRequest(features: 3, client: "golden é"),
        "hello.reply": HelloReply(
            version: 1, features: 3, instance: 0x1122_3344_5566_7788, maxBody: 64 << 20, maxInFlight: 64,
            maxArena: 1 << 30, server: "kvtcd 0.1"),
        "arena": ArenaRequest(bytes: 1 << 26),
        "arena.reply": ArenaReply(arena: 7, bytes: 1 << 26),
        "openSession": OpenSessionRequest(
            name: "chat-1", profile: profile, layout: PageLayout(element: .f16), policy: fullPolicy),
        "openSession.geometry": OpenSessionRequest(
            name: "", tensors: tensors,
            layout: PageLayout(
                element: .bf16, order: .tensorHeadToken, grouping: .layerPairs, valueTransposed: true),
            pageTokens: 16, policy: leanPolicy),
        "openSession.identity": OpenIdentifiedSessionRequest(
            OpenSessionRequest(
                name: "chat-1", tensors: tensors, layout: PageLayout(element: .f16), policy: leanPolicy),
            identity: Array(1...32)),
        "openSession.reply": OpenSessionReply(session: 9, profile: profile, tokenBytes: 128),
        "setPolicy": SetPolicyRequest(session: 9, policy: fullPolicy),
        "setPolicy.bounds": SetPolicyRequest(session: 9, policy: boundedPolicy),
        "setPolicy.reply": SetPolicyReply(
            rawTokens: 132, alreadyCoded: [PositionRange(begin: 10, end: 20), PositionRange(begin: 40, end: 48)]),
        "lookup": LookupRequest(session: 9, leaseMs: 5000, keys: [key(0), key(1), key(2)]),
        "lookup.reply": LookupReply(lease: lease, leadingRun: 2, residence: [.raw, .disk, .absent]),
        "push.arena": PushRequest(
            session: 9, arena: 7,
            entries: [
                PushEntry(key: key(0), firstPosition: 0, tokens: 64, offset: 0, length: 8192),
                PushEntry(key: key(1), firstPosition: 64, tokens: 3, offset: 8192, length: 384),
            ]),
        "push.inline": PushRequest(
            session: 9, arena: Wire.none,
            entries: [PushEntry(key: key(2), firstPosition: 0, tokens: 1, offset: 0, length: 5)],
            inline: [1, 2, 3, 4, 5]),
        "push.reply": PushReply(outcomes: [.stored, .present, .full, .tooLarge, .nonFinite]),
        "pull": PullRequest(
            session: 9, lease: lease, arena: 7, layerStep: 4,
            entries: [
                PullEntry(key: key(0), offset: 0, capacity: 8192),
                PullEntry(key: key(1), offset: 8192, capacity: 1 << 40),
            ]),
        "pull.part": PullPart(
            entry: 1, layerBegin: 4, layerEnd: 8, outcome: .hit, offset: 4096, length: 5,
            inline: ArraySlice("hello".utf8)),
        "pull.reply": PullReply(hits: 1, misses: 2, corrupt: 3, other: 4),
        "release": ReleaseRequest(lease: lease),
        "release.reply": EmptyReply(),
        "prefetch": PrefetchRequest(session: 9, keys: [key(0), key(1)]),
        "prefetch.reply": PrefetchReply(queued: 2),
        "touch": TouchRequest(session: 9, pin: .pin, keys: [key(0)]),
        "touch.reply": TouchReply(found: 1),
        "drop": DropRequest(session: Wire.none, keys: []),
        "drop.reply": DropReply(dropped: 5),
        "truncate": TruncateRequest(session: 9, tokens: 300),
        "truncate.reply": TruncateReply(tokens: 256, pages: 3),
        "closeSession": CloseSessionRequest(session: 9),
        "closeSession.reply": EmptyReply(),
        "status": StatusRequest(),
        "status.reply": JSONReply(json: "{\"state\":\"ready\"}"),
        "flush": FlushRequest(session: Wire.none),
        "flush.reply": FlushReply(pages: 12, bytes: 98304),
        "profile.list": ProfileRequest(action: .list),
        "profile.load": ProfileRequest(action: .load, name: "m.kvtc.safetensors"),
        "profile.reply": JSONReply(json: "[]"),
        "storeProfile": StoreProfileRequest(arena: 7, offset: 4096, length: 1 << 33, name: "m.kvtc.safetensors"),
        "storeProfile.reply": JSONReply(json: "{}"),
        "ping": PingRequest(payload: [0, 255]),
        "ping.reply": PingReply(payload: [0, 255]),
        "verify": VerifyRequest(),
        "verify.reply": VerifyReply(checked: 7, total: 9, bytes: 1 << 33, corrupt: 1, unreadable: 2),
        "drain": DrainRequest(begin: true),
        "drain.reply": DrainReply(waiting: 3, unwritten: 1 << 33),
        "getPolicy": GetPolicyRequest(session: 9),
        "getPolicy.reply": GetPolicyReply(policy: leanPolicy, tokens: 777),
        "hello.blocks": HelloRequest(features: 15, client: "golden"),
        "lookupBlocks": LookupBlocksRequest(session: 9, leaseMs: 5000, keys: [key(0), key(1)]),
        "lookupBlocks.reply": LookupBlocksReply(
            lease: lease, leadingRun: 3,
            pages: [
                StoredPage(residence: .coded, mode: .transform, tokens: 64, length: 4321),
                StoredPage(residence: .raw, mode: .raw, tokens: 64, length: 8296),
                StoredPage(residence: .disk, mode: nil, tokens: 3, length: 1 << 33),
                StoredPage(),
            ]),
        "pullBlocks": PullBlocksRequest(
            session: 9, lease: lease, arena: 7,
            entries: [
                PullEntry(key: key(0), offset: 0, capacity: 4352),
                PullEntry(key: key(1), offset: 4352, capacity: 1 << 40),
            ]),
        "pullBlocks.part": PullPart(
            entry: 1, layerBegin: 0, layerEnd: 32, outcome: .hit, offset: 0, length: 4, inline: block),
        "pullBlocks.reply": PullReply(hits: 1, misses: 2, corrupt: 3, other: 4),
        "pushBlocks": PushBlocksRequest(
            session: 9, arena: Wire.none,
            entries: [PushEntry(key: key(2), firstPosition: 64, tokens: 64, offset: 0, length: 4)], inline: block),
        "pushBlocks.reply": PushReply(outcomes: [.stored, .present, .full]),
        "profileFile": ProfileFileRequest(session: 9),
        "profileFile.reply": ProfileFileReply(profile: profile, bytes: 1 << 33),
        "getPolicy.near.reply": GetPolicyReply(policy: nearPolicy, tokens: 777),
        "hello.code": HelloRequest(features: 31, client: "golden"),
        "setPolicy.atOnce": SetPolicyRequest(session: 9, policy: Policy(code: .atOnce)),
        "setPolicy.underPressure": SetPolicyRequest(session: 9, policy: Policy(pin: true, code: .underPressure)),
        "getPolicy.idle.reply": GetPolicyReply(
            policy: Policy(near: 0.00390625, keepsOutliers: false, code: .idle), tokens: 777),
        "hello.explain": HelloRequest(features: 63, client: "golden"),
        "explain.session": ExplainRequest(session: 9, first: 1024),
        "explain.keys": ExplainRequest(session: Wire.none, keys: [key(0), key(1)]),
        "explain.reply": JSONReply(json: "{\"pages\":[]}"),
        "hello.shared": HelloRequest(features: Wire.features, client: "golden"),
        "shared.ping": SharedRequest(action: .ping),
        "shared.drop": SharedRequest(action: .drop, place: "17 kv-a:6379"),
        "shared.reply": JSONReply(json: "{\"removed\":0}"),
        "lookup.shared.reply": LookupReply(lease: lease, leadingRun: 3, residence: [.raw, .disk, .shared]),
    ]

    static func error(_ code: ErrorCode) -> WireError {
        WireError(code, field: code.rawValue % 2 == 1 ? "entries[3].offset" : "", "what is wrong: \(code)")
    }
}
