import KVTCCalibration
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// Every shape that models' caches come in, from samples to a profile to blocks and back, layer by layer.
@Suite struct ShapeTests {
    struct Shape: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var tensors: [TensorGeometry]
        var element = Element.f16
        init(_ name: String, _ tensors: [TensorGeometry], _ element: Element = .f16) {
            (testDescription, self.element, self.tensors) = (name, element, tensors)
        }
    }

    static func pairs(
        _ layers: Range<Int>, heads: Int, key: Int, value: Int, _ rotary: Rotary?
    ) -> [TensorGeometry] {
        layers.flatMap {
            [
                TensorGeometry(layer: $0, role: .key, heads: heads, headDim: key, rotary: rotary),
                TensorGeometry(layer: $0, role: .value, heads: heads, headDim: value),
            ]
        }
    }

    static let half = Rotary(style: .halfSplit, dims: 64, base: 10_000)
    static let grouped = pairs(0..<3, heads: 2, key: 64, value: 64, half)

    static let shapes: [Shape] = [
        Shape("grouped queries, heads of 64", grouped),
        Shape(
            "all heads, 80 wide, 32 of them rotated in pairs",
            pairs(0..<2, heads: 8, key: 80, value: 80, Rotary(style: .interleaved, dims: 32, base: 10_000))),
        Shape(
            "one head of 256",
            pairs(0..<4, heads: 1, key: 256, value: 256, Rotary(style: .halfSplit, dims: 256, base: 1e6))),
        Shape(
            "keys wider than values, rotated at the end",
            pairs(0..<2, heads: 4, key: 96, value: 64, Rotary(style: .interleaved, offset: 64, dims: 32, base: 10_000))),
        Shape(
            "latents with a rotated part",
            (0..<3).map {
                TensorGeometry(
                    layer: $0, role: .latent, heads: 1, headDim: 192,
                    rotary: Rotary(style: .interleaved, offset: 128, dims: 64, base: 10_000))
            }),
        Shape(
            "latents with the rotated part as a key",
            (0..<3).flatMap {
                [
                    TensorGeometry(layer: $0, role: .latent, heads: 1, headDim: 128),
                    TensorGeometry(layer: $0, role: .key, heads: 1, headDim: 64, rotary: half),
                ]
            }),
        Shape(
            "layers without values, without keys, without anything",
            [
                TensorGeometry(layer: 0, role: .key, heads: 2, headDim: 64, rotary: half),
                TensorGeometry(layer: 0, role: .value, heads: 2, headDim: 64),
                TensorGeometry(layer: 1, role: .key, heads: 2, headDim: 64, rotary: half),
                TensorGeometry(layer: 3, role: .value, heads: 2, headDim: 64),
                TensorGeometry(layer: 4, role: .key, heads: 2, headDim: 64, rotary: half),
            ]),
        Shape(
            "layers with frequencies of their own, one of them none",
            (0..<3).flatMap { layer in
                pairs(
                    layer..<layer + 1, heads: 2, key: 64, value: 64,
                    layer == 1 ? nil : Rotary(style: .halfSplit, dims: 64, base: layer == 0 ? 1e4 : 1e6))
            }),
        Shape("bfloat16", grouped, .bf16),
        Shape("single precision", grouped, .f32),
        Shape("8 bits, 4 of them exponent", grouped, .e4m3),
        Shape("8 bits, 5 of them exponent", grouped, .e5m2),
    ]

    @Test(arguments: shapes, [1, 2, 3]) func goesFromSamplesToBlocksAndBack(shape: Shape, layerGroups: Int) throws {
        let model = try SyntheticModel(shape.tensors, element: shape.element)
        let profile = try model.profile(layerGroups: layerGroups)
        #expect(profile.geometry == model.geometry)
        let layers = Set(shape.tensors.map(\.layer)).count
        #expect(profile.metadata.bases.count == min(layerGroups, layers))
        try check(model, profile)
    }

    /// Codes a page of the model and compares what comes back.
    private func check(_ model: SyntheticModel, _ profile: Profile) throws {
        let codec = try PageCodec(geometry: profile.geometry, profile: profile)
        let page = model.cached(Array(1000..<1064), seed: 5)
        let plain = PageLayout(element: model.element, order: .tokenTensorHead)
        let raw = try page.withUnsafeBytes { try codec.wrap(page: $0, layout: plain, tokens: 64, firstPosition: 1000) }
        var kept = RowSet(count: 64)
        kept.insert(0..<4)
        let block = try raw.withUnsafeBytes {
            try codec.encode(block: $0, mode: .transform, quality: .ratio(8), protected: kept)
        }
        let header = try block.withUnsafeBytes { try BlockHeader.parse($0) }
        #expect(header.mode == .transform && header.profile == profile.id)
        #expect(Double(header.codedRawBytes) / Double(header.codedStoredBytes) >= 8)

        let layers = 0..<codec.geometry.layers
        let back = try decode(codec, block, layers, plain)
        let rowBytes = page.count / 64
        #expect(back[..<(4 * rowBytes)] == page[..<(4 * rowBytes)])
        #expect(back[(4 * rowBytes)...] != page[(4 * rowBytes)...])
        // Each tensor by itself: one that is wrong must not hide behind the others.
        let (before, after) = (floats(page, model.element), floats(back, model.element))
        for (tensor, offset) in zip(codec.geometry.tensors, codec.geometry.offsets) {
            var (error, energy) = (Float(0), Float(0))
            for row in 4..<64 {
                for index in row * codec.geometry.rowElements + offset..<row * codec.geometry.rowElements + offset
                    + tensor.width
                {
                    error += (before[index] - after[index]) * (before[index] - after[index])
                    energy += before[index] * before[index]
                }
            }
            #expect(error < 0.02 * energy, "\(tensor.role) of layer \(tensor.layer)")
        }
        // Layer by layer, in a layout of another order, the same bits come back; layers without tensors have none.
        let paired = PageLayout(element: model.element, order: .tensorHeadToken, grouping: .layerPairs)
        let whole = try decode(codec, block, layers, paired)
        #expect(whole.count == page.count)
        #expect(try layers.flatMap { try decode(codec, block, $0..<$0 + 1, paired) } == whole)
        // A worker of that layout could have pushed the page.
        let exact = try decode(codec, raw, layers, paired)
        let again = try exact.withUnsafeBytes {
            try codec.wrap(page: $0, layout: paired, tokens: 64, firstPosition: 1000)
        }
        #expect(again == raw)
    }

    private func decode(_ codec: PageCodec, _ block: [UInt8], _ layers: Range<Int>, _ layout: PageLayout) throws
        -> [UInt8]
    {
        var output = [UInt8](
            repeating: 0xA5, count: layout.pageBytes(geometry: codec.geometry, tokens: 64, layers: layers))
        try block.withUnsafeBytes { block in
            try output.withUnsafeMutableBytes {
                try codec.decode(block: block, layers: layers, layout: layout, into: $0)
            }
        }
        return output
    }

    @Test func wrongRotationCostsSeveralTimesTheError() throws {
        let model = try SyntheticModel(ShapeTests.grouped)
        func distortion(_ metadata: [String: String]) throws -> Float {
            let profile = try model.profile(metadata: metadata)
            let codec = try PageCodec(geometry: profile.geometry, profile: profile)
            let page = model.cached(Array(1000..<1064), seed: 5)
            let raw = try page.withUnsafeBytes {
                try codec.wrap(
                    page: $0, layout: PageLayout(element: .f16, order: .tokenTensorHead), tokens: 64,
                    firstPosition: 1000)
            }
            let block = try raw.withUnsafeBytes {
                try codec.encode(block: $0, mode: .transform, quality: .ratio(8), protected: RowSet(count: 64))
            }
            return try block.withUnsafeBytes { try BlockHeader.parse($0) }.distortion
        }
        #expect(try distortion(["rope_style": "none"]) > 3 * distortion([:]))
    }

    @Test func ranksHaveProfilesOfTheirOwn() throws {
        let directory = try TemporaryDirectory()
        // Tensor parallelism: the same shape on every rank, other heads. Pipeline parallelism: layers not from 0.
        var ranks: [SyntheticModel] = []
        for index in 0..<2 {
            var rank = try SyntheticModel(ShapeTests.grouped)
            rank.rank = ModelRank(index: index, world: 2)
            rank.seed = UInt64(20 + index)
            ranks.append(rank)
        }
        var stage = try SyntheticModel(ShapeTests.pairs(20..<23, heads: 2, key: 64, value: 64, ShapeTests.half))
        stage.rank = ModelRank(index: 1, world: 2)
        let profiles = try (ranks + [stage]).map { try $0.profile() }
        #expect(
            profiles.map(\.metadata.rank) == [ModelRank(index: 0, world: 2), .init(index: 1, world: 2), stage.rank])
        #expect(Set(profiles.map(\.id)).count == 3)
        for (model, profile) in zip(ranks + [stage], profiles) { try check(model, profile) }
        // The basis of one rank is no good for another's heads.
        let foreign = try PageCodec(geometry: profiles[1].geometry, profile: profiles[1])
        let page = ranks[0].cached(Array(0..<64), seed: 3)
        let raw = try page.withUnsafeBytes {
            try foreign.wrap(
                page: $0, layout: PageLayout(element: .f16, order: .tokenTensorHead), tokens: 64, firstPosition: 0)
        }
        let block = try raw.withUnsafeBytes {
            try foreign.encode(block: $0, mode: .transform, quality: .ratio(8), protected: RowSet(count: 64))
        }
        #expect(try block.withUnsafeBytes { try BlockHeader.parse($0) }.distortion > 0.2)
        let own = try PageCodec(geometry: profiles[0].geometry, profile: profiles[0])
        #expect(throws: CodecError.self) { try decode(own, block, 0..<1, PageLayout(element: .f16)) }

        let paths = (0..<2).map { directory.file("rank-\($0).safetensors") }
        for (rank, path) in zip(ranks, paths) { try rank.write(path, contexts: [[0, 1, 2]], seed: 1) }
        let error = #expect(throws: CalibrationError.self) { try SampleSet(paths: paths) }
        #expect(error?.description.contains("is of rank 1 of 2, but") == true)
    }

    @Test func gapsInPositionsEndContextsAndPages() throws {
        // Layers with a sliding window keep the last tokens of each document only.
        let contexts = (0..<6).map { Array($0 * 1000 + 300..<$0 * 1000 + 500) }
        let model = try SyntheticModel(ShapeTests.grouped)
        let directory = try TemporaryDirectory()
        try model.write(
            directory.file("s"), contexts: [contexts[0] + contexts[1], Array(contexts[2].dropFirst(3))], seed: 9)
        let samples = try SampleSet(paths: [directory.file("s")])
        #expect(samples.contexts == [0..<200, 200..<400, 400..<597])
        #expect(samples.position(of: 200) == 1300 && samples.position(of: 400) == 2303)
        try check(model, try model.profile(contexts: contexts))
    }

    @Test func filesThatDoNotBelongTogetherAreNamed() throws {
        let directory = try TemporaryDirectory()
        func message(_ change: (inout SyntheticModel) throws -> Void, metadata: [String: String] = [:]) throws -> String
        {
            var other = try SyntheticModel(ShapeTests.grouped)
            try SyntheticModel(ShapeTests.grouped).write(directory.file("a"), contexts: [[0, 1]], seed: 1)
            try change(&other)
            try other.write(directory.file("b"), contexts: [[0, 1]], seed: 2, metadata: metadata)
            do {
                _ = try SampleSet(paths: [directory.file("a"), directory.file("b")])
                return "accepted"
            } catch { return "\(error)" }
        }
        #expect(try message({ _ in }) == "accepted")
        #expect(try message({ $0.element = .bf16 }) == "accepted")
        #expect(try message({ $0.name = "other" }).contains("b: is of the model \"other\""))
        #expect(try message({ $0.rank = ModelRank(index: 0, world: 4) }).contains("is of rank 0 of 4, but"))
        let wider = try message { $0 = try SyntheticModel(ShapeTests.pairs(0..<3, heads: 3, key: 64, value: 64, nil)) }
        #expect(wider.contains("k.0 is 3 × 64 here, 2 × 64 with 64 rotated from 0 (halfSplit) there"))
        let fewer = try message { $0 = try SyntheticModel(Array(ShapeTests.grouped.dropLast())) }
        #expect(fewer.contains("v.2 is absent here"))
        #expect(try message({ _ in }, metadata: ["rope_style": "spiral"]).contains("rope_style spiral"))
        #expect(try message({ _ in }, metadata: ["rank": "4", "world": "4"]).contains("0 ≤ rank < world"))
    }
}
