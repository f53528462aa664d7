import Foundation
import KVTCClient
import KVTCCodec
import KVTCDaemon
import KVTCModel
import KVTCProtocol
import SyntheticProfile
import TestSupport
import Testing

/// A daemon that has the synthetic profile, and blocks as a worker would make them.
struct BlockBench {
    let synthetic: SyntheticPages
    let directory: TemporaryDirectory
    let codec: PageCodec

    init() throws {
        synthetic = try SyntheticPages.shared.get()
        codec = try synthetic.codec
        directory = try TemporaryDirectory()
        let profiles = directory.file("state/profiles")
        try FileManager.default.createDirectory(atPath: profiles, withIntermediateDirectories: true)
        try Data(synthetic.file).write(to: URL(fileURLWithPath: profiles + "/synthetic.kvtc.safetensors"))
    }

    func daemon(_ change: (inout DaemonConfiguration) -> Void = { _ in }) throws -> TestDaemon {
        try TestDaemon(directory: directory, change)
    }

    func open(_ client: Client, _ policy: Policy = Policy(sink: 0, window: 0)) throws -> ClientSession {
        try ClientSession(
            client,
            OpenSessionRequest(
                name: "test", profile: synthetic.profile.id.bytes, layout: SyntheticPages.layout, pageTokens: 64,
                policy: policy))
    }

    /// The page as a block, coded at a position with some rows exact.
    func block(
        _ page: [UInt8], at first: Int = 0, mode: Mode = .transform, quality: Quality = .ratio(12),
        protected: [Int] = []
    ) throws -> [UInt8] {
        let tokens = page.count / synthetic.rowBytes
        let wrapped = try page.withUnsafeBytes {
            try codec.wrap(page: $0, layout: SyntheticPages.layout, tokens: tokens, firstPosition: first)
        }
        var rows = RowSet(count: tokens)
        for row in protected { rows.insert(row) }
        return try wrapped.withUnsafeBytes {
            try codec.encode(block: $0, mode: mode, quality: quality, protected: rows, keepOutliers: false)
        }
    }

    func header(_ block: [UInt8]) throws -> BlockHeader { try block.withUnsafeBytes { try BlockHeader.parse($0) } }

    /// The page that is in a block, raw ones without a checksum of their payload among them.
    func page(_ block: [UInt8]) throws -> [UInt8] {
        let decoder = codec.takeDecoder()
        defer { codec.giveBack(decoder) }
        return try block.withUnsafeBytes { bytes in
            try decoder.open(bytes, isVerified: true)
            let tokens = try #require(decoder.header?.tokens)
            var page = [UInt8](repeating: 0, count: tokens * synthetic.rowBytes)
            try page.withUnsafeMutableBytes {
                try decoder.write(layers: 0..<codec.geometry.layers, layout: SyntheticPages.layout, into: $0)
            }
            return page
        }
    }

    func push(
        _ session: ClientSession, _ number: Int, _ block: [UInt8], at first: Int? = nil, tokens: UInt32 = 64
    ) throws -> PushOutcome? {
        try session.pushBlocks([
            ClientBlock(
                key: Pages.key(UInt64(number)), firstPosition: UInt32(first ?? number * 64), tokens: tokens,
                bytes: block)
        ]).first
    }

    func pull(_ session: ClientSession, _ numbers: Range<Int>) throws -> [[UInt8]?] {
        try Pages.pull(session.client, session.number, keys(numbers), capacity: 1 << 20)
    }

    func keys(_ numbers: Range<Int>) -> [PageKey] { numbers.map { Pages.key(UInt64($0)) } }
}

/// A block with other bytes and the checksums that belong to them.
func changed(_ block: [UInt8], _ change: (inout [UInt8]) -> Void) -> [UInt8] {
    var block = block
    change(&block)
    seal(&block, at: 88, BlockHeader.size..<block.count)
    seal(&block, at: 96, 0..<96)
    return block
}

private func seal(_ block: inout [UInt8], at offset: Int, _ range: Range<Int>) {
    block.withUnsafeMutableBytes { bytes in
        let sum = Checksum()
        sum.add(UnsafeRawBufferPointer(rebasing: bytes[range]))
        bytes.storeBytes(of: sum.value.littleEndian, toByteOffset: offset, as: UInt64.self)
    }
}

extension [UInt8] {
    /// Puts a little-endian number in.
    mutating func put(_ value: some FixedWidthInteger, at offset: Int) {
        withUnsafeMutableBytes { $0.storeBytes(of: value.littleEndian, toByteOffset: offset, as: type(of: value)) }
    }
}
