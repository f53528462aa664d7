import KVTCClient
import KVTCModel
import KVTCProtocol
import KVTCStore
import KVTCSystem
import Logging
import TestSupport
import Testing

@testable import KVTCDaemon

/// A daemon of one test, in this process, behind a real socket.
final class TestDaemon: Sendable {
    let directory: TemporaryDirectory
    let configuration: DaemonConfiguration
    let server: DaemonServer

    init(
        directory: TemporaryDirectory? = nil, pool: WorkPool? = nil, stopLimits: StopLimits = StopLimits(),
        device: (any StorageDevice)? = nil, shared: (any SharedTier)? = nil,
        _ change: (inout DaemonConfiguration) -> Void = { _ in }
    ) throws {
        let directory = try directory ?? TemporaryDirectory()
        self.directory = directory
        var configuration = DaemonConfiguration(environment: [:], isRoot: true)
        configuration.socketPath = directory.file("s")
        configuration.directory = directory.file("state")
        configuration.ramBudget = 64 << 20
        configuration.diskBudget = 256 << 20
        configuration.segmentBytes = 4 << 20
        configuration.workers = 2
        // What most tests are about comes after coding.
        configuration.code = .atOnce
        change(&configuration)
        self.configuration = configuration
        var log = Logger(label: "test") { _ in KeyValueLog(level: .critical) }
        log.logLevel = .critical
        server = try DaemonServer(
            configuration: configuration, log: log, pool: pool ?? WorkPool(threads: configuration.workers),
            shared: shared, stopLimits: stopLimits
        ) { if let device { $0.device = device } }
        try server.start()
    }

    func stop() { #expect(server.stop()) }

    /// What the main loop does now and then.
    func maintain() { server.maintain() }

    func client() throws -> Client { try Client(socketPath: configuration.socketPath, name: "test") }

    /// A connection that says what it wants.
    func raw() throws -> RawClient { RawClient(try UnixConnection.connect(to: configuration.socketPath)) }

    /// The proof that the daemon still serves: a new client pushes a page and gets it back.
    func expectServing(_ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let client = try client()
        defer { client.close() }
        let session = try Pages.open(client, policy: Policy(mode: .lossless))
        let page = Pages.random(tokens: 16, seed: .random(in: 0 ... .max))
        let key = Pages.key(.random(in: 0 ... .max))
        let outcomes = try session.push([ClientPage(key: key, firstPosition: 0, bytes: page)])
        #expect(outcomes == [.stored], comment, sourceLocation: sourceLocation)
        #expect(
            try Pages.pull(client, session.number, [key], capacity: page.count) == [page], comment,
            sourceLocation: sourceLocation)
    }
}

/// Speaks frames, right or wrong ones.
final class RawClient: Sendable {
    let socket: UnixConnection
    init(_ socket: UnixConnection) { self.socket = socket }

    func send(_ opcode: UInt16, id: UInt64 = 1, flags: UInt32 = 0, length: UInt32? = nil, _ body: [UInt8] = []) throws {
        let header = FrameHeader(opcode: opcode, id: id, status: flags, bodyLength: length ?? UInt32(body.count))
        try socket.write([header.encoded[...], body[...]])
    }

    func send(_ request: some WireRequest, id: UInt64 = 1) throws {
        try send(type(of: request).opcode.rawValue, id: id, request.encodedBody)
    }

    func reply() throws -> (header: FrameHeader, body: [UInt8]) {
        let deadline = MonotonicClock.nanoseconds + 60_000_000_000
        let header = try FrameHeader.parse(socket.read(count: FrameHeader.byteCount, deadline: deadline)).header
        return (header, try socket.read(count: Int(header.bodyLength), deadline: deadline))
    }

    /// The code of the next reply; nil when it is no error.
    func error() throws -> ErrorCode? {
        let (header, body) = try reply()
        guard header.errorStatus != 0 else { return nil }
        return try WireError(status: header.errorStatus, body: body).code
    }

    func hello() throws {
        try send(HelloRequest(client: "raw"))
        #expect(try error() == nil)
    }

    /// Whether the daemon has ended the connection.
    func isOver() -> Bool {
        let deadline = MonotonicClock.nanoseconds + 60_000_000_000
        do { _ = try socket.read(count: 1, deadline: deadline) } catch { return error == .closed(partial: false) }
        return false
    }
}

/// Pages of a small model: two layers, two heads of eight, half precision: 128 bytes a token.
enum Pages {
    static let tokenBytes = 128
    static let tensors = (0..<2).flatMap { layer in
        [
            TensorGeometry(layer: layer, role: .key, heads: 2, headDim: 8),
            TensorGeometry(layer: layer, role: .value, heads: 2, headDim: 8),
        ]
    }

    static func key(_ number: UInt64) -> PageKey {
        PageKey((0..<32).map { UInt8(truncatingIfNeeded: number >> UInt64($0 % 8 * 8)) })!
    }

    /// Halves between 1 and 2, so that every one is finite.
    static func random(tokens: Int, seed: UInt64) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        return (0..<tokens * tokenBytes).map { index in
            let byte = UInt8.random(in: 0...255, using: &generator)
            return index % 2 == 1 ? 0x3C | byte & 3 : byte
        }
    }

    static func request(
        policy: Policy, name: String = "test", tensors: [TensorGeometry] = tensors,
        layout: PageLayout = PageLayout(element: .f16), pageTokens: UInt32 = 16
    ) -> OpenSessionRequest {
        OpenSessionRequest(
            name: name, tensors: tensors, layout: layout, pageTokens: pageTokens, policy: policy)
    }

    static func open(_ client: Client, policy: Policy) throws -> ClientSession {
        try ClientSession(client, request(policy: policy))
    }

    /// Pages of 16 random tokens, one behind the other, for an engine without a client.
    static func push(_ engine: Engine, _ session: UInt32, _ pages: Range<Int>, _ caller: Caller) throws {
        for page in pages {
            let bytes = random(tokens: 16, seed: UInt64(page))
            let entry = PushEntry(
                key: key(UInt64(page)), firstPosition: UInt32(page * 16), tokens: 16, offset: 0,
                length: UInt64(bytes.count))
            let request = PushRequest(session: session, arena: Wire.none, entries: [entry], inline: bytes[...])
            #expect(try engine.push(request, arena: nil, caller).outcomes == [.stored])
        }
    }

    /// Inline pull of whole pages; nil for those that are not there.
    static func pull(
        _ client: Client, _ session: UInt32, _ keys: [PageKey], capacity: Int, layerStep: UInt16 = 0
    ) throws -> [[UInt8]?] {
        var pages = [[UInt8]?](repeating: nil, count: keys.count)
        let request = PullRequest(
            session: session, arena: Wire.none, layerStep: layerStep,
            entries: keys.map { PullEntry(key: $0, offset: 0, capacity: UInt64(capacity)) })
        _ = try client.pull(request) { part in
            guard part.outcome == .hit else { return }
            var page = pages[Int(part.entry)] ?? []
            #expect(part.offset == UInt64(page.count))
            page += part.inline
            pages[Int(part.entry)] = page
        }
        return pages
    }

    /// What a pull in single layers gives: K0 V0 K1 V1 instead of K0 K1 V0 V1.
    static func byLayer(_ page: [UInt8]) -> [UInt8] {
        let tensor = page.count / 4
        var result: [UInt8] = []
        for index in [0, 2, 1, 3] { result += page[index * tensor..<(index + 1) * tensor] }
        return result
    }

    static func row(_ page: [UInt8], _ row: Int) -> [UInt8] {
        // Tensor, token, head: four tensors of 32 bytes a token each.
        let tokens = page.count / tokenBytes
        return (0..<4).flatMap { tensor in page[(tensor * tokens + row) * 32..<(tensor * tokens + row + 1) * 32] }
    }

    /// Whether two rows hold about the same numbers: those of two pages are a third apart on average.
    static func areNear(_ row: [UInt8], _ other: [UInt8]) -> Bool {
        func values(_ row: [UInt8]) -> [Float] {
            row.withUnsafeBytes { bytes in
                stride(from: 0, to: row.count, by: 2).map {
                    Float(Float16(bitPattern: bytes.loadUnaligned(fromByteOffset: $0, as: UInt16.self)))
                }
            }
        }
        return zip(values(row), values(other)).allSatisfy { abs($0 - $1) < 0.2 }
    }
}

func refusal(_ body: () throws -> Void) -> WireError? {
    do { try body() } catch ClientError.refused(let error) { return error } catch { Issue.record(error) }
    return nil
}
