import CXXHash
import Foundation
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// Values of enumerations that this release does not know, under good checksums: never taken for others.
@Suite struct UnknownValueTests {
    @Test func unknownModesAndElementsOfBlocksAreRefused() throws {
        let geometry = try Geometry(tensors: [TensorGeometry(layer: 0, role: .key, heads: 1, headDim: 8)])
        let codec = try PageCodec(geometry: geometry)
        let page = [UInt8](repeating: 0, count: 2 * 16)
        let block = try page.withUnsafeBytes {
            try codec.wrap(page: $0, layout: PageLayout(), tokens: 2, firstPosition: 0)
        }
        func parse(_ offset: Int, _ value: UInt8) throws -> BlockHeader {
            var changed = block
            changed[offset] = value
            let sum = changed.withUnsafeBytes { xxh3($0.baseAddress, 96, 0) }
            withUnsafeBytes(of: sum.littleEndian) { changed.replaceSubrange(96..<104, with: $0) }
            return try changed.withUnsafeBytes { try BlockHeader.parse($0) }
        }
        for value in UInt8.min...UInt8.max {
            for (offset, isKnown) in [(6, Mode(rawValue: value) != nil), (7, Element(rawValue: value) != nil)] {
                if isKnown {
                    _ = try parse(offset, value)
                } else {
                    let (mode, element) = offset == 6 ? (value, block[7]) : (block[6], value)
                    #expect(throws: CodecError.corrupt("mode \(mode) or element type \(element)")) {
                        try parse(offset, value)
                    }
                }
            }
        }
    }

    @Test func unknownRolesAndRotationsOfProfilesAreRefused() throws {
        // A profile that carries no digest of itself.
        let file = FileManager.default.contents(atPath: testFile("Fuzz/Corpus/profiles/tiny"))!
        _ = try Profile(bytes: [UInt8](file))
        func refused(_ known: String, _ unknown: String, _ complaint: String) throws {
            var changed = file
            changed.replaceSubrange(try #require(changed.range(of: Data(known.utf8))), with: Data(unknown.utf8))
            #expect(throws: CodecError.corrupt(complaint)) { try Profile(bytes: [UInt8](changed)) }
        }
        for role in 3...9 { try refused(#"\"role\":1"#, #"\"role\":\#(role)"#, "profile tensor with role \(role)") }
        for style in [0] + Array(3...9) {
            try refused(
                #"\"ropeStyle\":2"#, #"\"ropeStyle\":\#(style)"#, "profile tensor with rope style \(style)")
        }
        try refused(#"\"rope\":0"#, #"\"rope\":1"#, "profile tensor with rope table 1")
    }
}
