import Foundation
import KVTCModel
import TestSupport
import Testing

@testable import KVTCCalibration
@testable import KVTCCodec

/// Bases of some layers each. ``ShapeTests`` codes pages with them.
@Suite struct LayerGroupTests {
    private static func model(layers: Int) throws -> SyntheticModel {
        try SyntheticModel(ShapeTests.pairs(0..<layers, heads: 1, key: 32, value: 32, nil))
    }

    @Test func basesHaveKeysAndValuesOfTheirLayers() throws {
        for (layers, count) in [(1, 1), (30, 2), (31, 2), (45, 3), (4, 4)] {
            let bases = ColumnGroup.bases(of: try LayerGroupTests.model(layers: layers).geometry, parts: count)
            #expect(bases.count == count)
            for basis in bases {
                #expect(basis.ranges.count == (count == 1 ? 1 : 2))
                #expect(Set(basis.ranges.map(\.count)).count == 1)
            }
        }
        #expect(ColumnGroup.bases(of: try LayerGroupTests.model(layers: 2).geometry, parts: 5).count == 2)
    }

    @Test func halvesTheDigitsAndSaysSoInAFormatOfItsOwn() throws {
        let model = try LayerGroupTests.model(layers: 16)
        let (one, two) = (try model.profile(), try model.profile(layerGroups: 2))
        #expect((one.metadata.format, two.metadata.format) == (2, 4))
        #expect(two.metadata.bases.map(\.ranges) == [[0..<256, 512..<768], [256..<512, 768..<1024]])
        #expect(two.packedBytes <= 11 * one.packedBytes / 20)
        let json = try JSONEncoder().encode(two.metadata)
        #expect(try JSONDecoder().decode(ProfileMetadata.self, from: json) == two.metadata)
    }

    @Test func rangesThatAreNotWholeTensorsOnceEachAreRefused() throws {
        let model = try LayerGroupTests.model(layers: 4)
        var metadata = try model.profile(layerGroups: 2).metadata
        #expect(try metadata.columns(of: model.geometry).map(\.width) == [128, 128])
        for ranges in [
            [[0..<64, 128..<192], [64..<128]], [[0..<64, 128..<192], [64..<128, 128..<256]],
            [[0..<64, 128..<192], [64..<128, 192..<257]], [[0..<48, 128..<192], [48..<128, 192..<256]], [[], []],
        ] {
            for index in 0..<2 { metadata.bases[index].ranges = ranges[index] }
            #expect(throws: CodecError.self) { try metadata.columns(of: model.geometry) }
        }
        metadata.bases = []
        #expect(throws: CodecError.self) { try metadata.columns(of: model.geometry) }
        for json in [
            #"{"rank":1,"digits":1}"#, #"{"ranges":[[0]],"rank":1,"digits":1}"#,
            #"{"ranges":[[4,2]],"rank":1,"digits":1}"#,
            #"{"begin":-1,"end":2,"rank":1,"digits":1}"#,
        ] {
            #expect(throws: DecodingError.self) {
                try JSONDecoder().decode(ProfileMetadata.Basis.self, from: Data(json.utf8))
            }
        }
    }
}
