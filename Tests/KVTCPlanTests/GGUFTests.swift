import KVTCModel
import KVTCPlan
import Testing

@Suite struct GGUFTests {
    /// A file's header, made piece by piece.
    private struct Header {
        var bytes = Array("GGUF".utf8)
        var entries: [[UInt8]] = []

        static func little(_ number: some FixedWidthInteger) -> [UInt8] {
            withUnsafeBytes(of: number.littleEndian, Array.init)
        }
        static func string(_ text: String) -> [UInt8] { little(UInt64(text.utf8.count)) + Array(text.utf8) }

        mutating func add(_ key: String, type: UInt32, _ value: [UInt8]) {
            entries.append(Self.string(key) + Self.little(type) + value)
        }
        mutating func add(_ key: String, _ value: UInt32) { add(key, type: 4, Self.little(value)) }
        mutating func add(_ key: String, _ values: [Int32]) {
            add(key, type: 9, Self.little(UInt32(5)) + Self.little(UInt64(values.count)) + values.flatMap(Self.little))
        }

        func file(version: UInt32 = 3, count: UInt64? = nil) -> [UInt8] {
            bytes + Self.little(version) + Self.little(UInt64(7)) + Self.little(count ?? UInt64(entries.count))
                + entries.joined()
        }
    }

    private func llama(_ change: (inout Header) -> Void = { _ in }) -> Header {
        var header = Header()
        // Vocabularies and numbers of other kinds stand between those that matter.
        header.add(
            "tokenizer.ggml.scores", type: 9,
            Header.little(UInt32(6)) + Header.little(UInt64(9000)) + [UInt8](repeating: 1, count: 36000))
        header.add(
            "tokenizer.ggml.tokens", type: 9,
            Header.little(UInt32(8)) + Header.little(UInt64(2)) + Header.string("a") + Header.string("bc"))
        header.add("general.architecture", type: 8, Header.string("llama"))
        header.add("llama.rope.freq_base", type: 6, Header.little(Float(10000).bitPattern))
        header.add("llama.block_count", 32)
        header.add("llama.attention.head_count", 32)
        change(&header)
        return header
    }

    private func shape(_ file: [UInt8], _ element: Element = .f16) throws(ModelError) -> CacheShape {
        try CacheShape(gguf: GGUFReader(byteCount: file.count) { Array(file[$0]) }, element: element)
    }

    @Test func groupedQueries() throws {
        let file = llama {
            $0.add("llama.attention.head_count_kv", 8)
            $0.add("llama.embedding_length", 4096)
        }.file()
        let found = try shape(file)
        #expect((found.tokenBytes, found.attention) == (128 << 10, 32 * 4096))
        #expect(try shape(file, .e4m3).tokenBytes == 64 << 10)
        #expect(CacheShape.isGGUF(file) && !CacheShape.isGGUF(Array("{".utf8)))
    }

    @Test func headsThatDifferByLayerAndLayersWithoutACache() throws {
        // Values are narrower than keys; half of the layers keep a state.
        let hybrid = llama {
            $0.add("llama.attention.head_count_kv", (0..<32).map { $0 % 2 == 0 ? 0 : 4 })
            $0.add("llama.attention.key_length", 192)
            $0.add("llama.attention.value_length", 128)
        }.file()
        #expect(try shape(hybrid).tokenBytes == 16 * 4 * (192 + 128) * 2)
        let everyFourth = llama {
            $0.add("llama.attention.head_count_kv", 2)
            $0.add("llama.attention.key_length", 256)
            $0.add("llama.full_attention_interval", 4)
        }.file()
        #expect(try shape(everyFourth).tokenBytes == 8 * 2 * 512 * 2)
        let shared = llama {
            $0.add("llama.attention.key_length", 64)
            $0.add("llama.attention.shared_kv_layers", 12)
            $0.add("llama.nextn_predict_layers", 1)
        }.file()
        #expect(try shape(shared).tokenBytes == 19 * 32 * 128 * 2)
    }

    @Test func latents() throws {
        // DeepSeek-V2-Lite as llama.cpp caches it: 512 + 64 elements a layer, which values are read from, too.
        let file = llama {
            $0.add("llama.attention.head_count_kv", 1)
            $0.add("llama.attention.key_length", 576)
            $0.add("llama.attention.value_length", 512)
            $0.add("llama.attention.key_length_mla", 192)
        }.file(version: 2)
        #expect(try shape(file).tokenBytes == 32 * 576 * 2)
    }

    @Test func everyBeginningIsRefused() {
        let file = llama { $0.add("llama.embedding_length", 4096) }.file()
        for count in [0, 3, 4, 20, 24, 31, 40, 100, 36_100, file.count - 1] {
            #expect(throws: ModelError.self) { try shape(Array(file[..<count])) }
        }
    }

    @Test func whatIsMissingOrHostileIsNamed() {
        func expect(_ field: String, _ file: [UInt8], line: SourceLocation = #_sourceLocation) {
            do {
                _ = try shape(file)
                Issue.record("it was taken", sourceLocation: line)
            } catch { #expect(error.field == field, "\(error)", sourceLocation: line) }
        }
        let complete = llama { $0.add("llama.embedding_length", 4096) }
        expect("gguf.version", complete.file(version: 3 << 24))
        expect("gguf.metadata", complete.file(count: .max >> 1))
        expect("gguf", complete.file(count: .max))
        expect("general.architecture", Header().file())
        expect("llama.embedding_length", llama().file())
        expect("llama.block_count", llama { $0.add("llama.block_count", .max) }.file())
        expect("llama.attention.head_count", llama { $0.add("llama.attention.head_count", 0) }.file())
        expect("llama.attention.head_count_kv", llama { $0.add("llama.attention.head_count_kv", [1, 2]) }.file())
        expect("llama.attention.key_length_swa", llama { $0.add("llama.attention.key_length_swa", 64) }.file())
        var header = complete
        header.add("llama.attention.head_count_kv", [Int32](repeating: -1, count: 32))
        expect("geometry.heads", header.file())
        // Lengths that reach beyond any file.
        header = complete
        header.add("x", type: 8, Header.little(UInt64.max >> 1))
        expect("gguf", header.file())
        header.entries[header.entries.count - 1] =
            Header.string("x") + Header.little(UInt32(9)) + Header.little(UInt32(10)) + Header.little(UInt64.max >> 1)
        expect("gguf", header.file())
        header.entries[header.entries.count - 1] = Header.string("x") + Header.little(UInt32(99))
        expect("gguf", header.file())
    }
}
