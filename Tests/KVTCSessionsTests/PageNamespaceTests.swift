import KVTCCodec
import KVTCModel
import KVTCSessions
import Testing

@Suite struct PageNamespaceTests {
    static func namespace(
        _ identity: String, layer: Int = 0, frequencies: [Float] = [1, 0.5], element: Element = .f16
    ) throws -> PageNamespace {
        let rotary = Rotary(style: .halfSplit, dims: 4, inverseFrequencies: frequencies)
        let tensor = TensorGeometry(layer: layer, role: .key, heads: 1, headDim: 4, rotary: rotary)
        let codec = try PageCodec(geometry: Geometry(tensors: [tensor]))
        return PageNamespace(identity: Array(identity.utf8), codec: codec, element: element)
    }

    @Test func keysMeetInTheSameNamespaceOfTheSameTenantOnly() throws {
        let namespaces = [
            try Self.namespace(""), try Self.namespace("a"), try Self.namespace("b"), try Self.namespace("", layer: 1),
            try Self.namespace("", frequencies: [1, Float(0.5).nextUp]), try Self.namespace("", element: .bf16),
        ]
        let keys = (0..<10).map { SIMD4<UInt64>($0, 0, 0, $0) }
        let known = namespaces.flatMap { namespace in
            (1...2).flatMap { tenant in keys.map { namespace.key($0, tenant: tenant) } }
        }
        #expect(Set(known).count == known.count)
        #expect(try Self.namespace("a").key(keys[3], tenant: 1) == namespaces[1].key(keys[3], tenant: 1))
        #expect(known.allSatisfy { [1, 2].contains($0.tenant) })
    }

    @Test func theNamespacesUsedLastAreKept() throws {
        var recent = RecentNamespaces()
        let many = try (0..<100).map { try Self.namespace("\($0)") }
        for namespace in many { recent.use(namespace) }
        #expect(recent.all == Array(many.suffix(RecentNamespaces.limit)))
        recent.use(many[50])
        recent.use(many[50])
        #expect(recent.all.count == RecentNamespaces.limit && recent.all.last == many[50])
    }
}
