import CCrypto
import Glibc
import KVTCClient
import KVTCModel
import KVTCProtocol

// The least that a worker does: pushes two pages of a cache, asks for them by their keys, pulls them back and compares.
//
//     ExampleWorker /run/kvtcd/kvtcd.sock

// The model: two layers with one head of 8 values each for K and V, kept as f16. RoPE matters to a profile alone.
let tensors = (0..<2).flatMap { layer in
    [Role.key, .value].map { TensorGeometry(layer: layer, role: $0, heads: 1, headDim: 8) }
}
let (pageTokens, pageBytes) = (16, 16 * tensors.count * 8 * 2)

/// Names a page with everything that led to it, as the wire protocol says. An engine's own block hashes do as well, where they
/// mean the same in every process.
func pageKey(after before: [UInt8], _ tokens: Range<Int>) -> [UInt8] {
    let noProfile = [UInt8](repeating: 0, count: 32)
    let numbers = ([tokens.count] + tokens).flatMap { number in
        (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    }
    let content = Array("kvtc-page-v1".utf8) + noProfile + before + numbers
    return [UInt8](unsafeUninitializedCapacity: 32) { digest, count in
        SHA256(content, content.count, digest.baseAddress)
        count = 32
    }
}

func fail(_ message: String) -> Never {
    let line = message + "\n"
    write(STDERR_FILENO, line, line.utf8.count)
    exit(1)
}

guard CommandLine.arguments.count == 2 else { fail("usage: ExampleWorker SOCKET") }
do throws(ClientError) {
    let client = try Client(socketPath: CommandLine.arguments[1], name: "example in Swift")
    // The identity names all that K and V depend on besides the tokens.
    let session = try ClientSession(
        client,
        OpenSessionRequest(
            name: "example", tensors: tensors, layout: PageLayout(element: .f16), pageTokens: UInt32(pageTokens),
            policy: Policy(mode: .lossless)),
        identity: Array("digest of the weights, adapters and scales".utf8))

    var before = [UInt8](repeating: 0, count: 32)
    let pages = (0..<2).map { page in
        before = pageKey(after: before, page * pageTokens..<(page + 1) * pageTokens)
        // Numbers between 1 and 2, as f16: what an engine would have computed.
        let bytes = (0..<pageBytes).map { $0 % 2 == 1 ? 0x3C : UInt8(truncatingIfNeeded: $0 / 2 + page) }
        return ClientPage(key: PageKey(before)!, firstPosition: UInt32(page * pageTokens), bytes: bytes)
    }
    let keys = pages.map(\.key)
    let outcomes = try session.push(pages)
    guard outcomes.allSatisfy({ $0 == .stored || $0 == .present }) else { fail("not stored: \(outcomes)") }
    guard try client.call(LookupRequest(session: session.number, keys: keys)).leadingRun == 2 else {
        fail("the pages are not there")
    }
    // Nil for a page that is not to be had: an engine computes it anew.
    guard try session.fetch(keys) == pages.map(\.bytes) else { fail("other bytes came back") }
    try session.close()
    print("\(pages.count) pages of \(pageBytes) bytes came back as they were")
} catch { fail("\(error)") }
