import CXXHash
import Foundation
import KVTCCodec
import KVTCModel
import TestSupport

/// The profile that comes with the golden blocks.
enum GoldenProfile {
    static let bytes: [UInt8] = {
        struct Golden: Decodable { var profile: Data }
        let file = try! Data(contentsOf: URL(fileURLWithPath: testFile("Golden/blocks-1.json")))
        return [UInt8](try! JSONDecoder().decode(Golden.self, from: file).profile)
    }()
    static let codec: PageCodec = {
        let profile = try! Profile(bytes: bytes)
        return try! PageCodec(geometry: profile.geometry, profile: profile)
    }()
}

/// A block with right checksums but otherwise any content, decoded whole and by layers and coded anew.
enum Blocks {
    static let layout = PageLayout(element: .f16, order: .tokenTensorHead)

    static func run(_ input: UnsafeRawBufferPointer) {
        let block = repaired(input)
        use(block, with: GoldenProfile.codec)
    }

    static func use(_ block: [UInt8], with codec: PageCodec) {
        block.withUnsafeBytes { bytes in
            guard let header = try? BlockHeader.parse(bytes) else { return }
            // The daemon refuses blocks of other shapes before it makes room for them; larger ones are only slow here.
            guard header.geometryHash == codec.geometryHash, header.tokens <= 256 else { return }
            let layers = codec.geometry.layers
            for range in [0..<layers, 0..<1, layers - 1..<layers] {
                let size = layout.pageBytes(geometry: codec.geometry, tokens: header.tokens, layers: range)
                var page = [UInt8](repeating: 0, count: size)
                page.withUnsafeMutableBytes {
                    try? codec.decode(block: bytes, layers: range, layout: layout, into: $0)
                }
            }
            if header.mode.isExact {
                _ = try? codec.encode(
                    block: bytes, mode: .transform, quality: .ratio(16), protected: RowSet(count: header.tokens))
            }
        }
    }

    static func repaired(_ input: UnsafeRawBufferPointer) -> [UInt8] {
        var block = [UInt8](input)
        guard block.count >= BlockHeader.size else { return block }
        block.withUnsafeMutableBytes { bytes in
            let payload = XXH3_64bits(bytes.baseAddress! + BlockHeader.size, bytes.count - BlockHeader.size)
            bytes.storeBytes(of: payload.littleEndian, toByteOffset: 88, as: UInt64.self)
            bytes.storeBytes(of: XXH3_64bits(bytes.baseAddress!, 96).littleEndian, toByteOffset: 96, as: UInt64.self)
        }
        return block
    }
}
