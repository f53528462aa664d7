import KVTCModel
import KVTCPlan
import Testing

@Suite struct CacheShapeTests {
    private func shape(_ json: String, _ element: Element? = nil) throws(ModelError) -> CacheShape {
        try CacheShape(configuration: Array(json.utf8), element: element)
    }

    @Test func groupedQueries() throws {
        // Llama-3.1-8B.
        let json = """
            {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "torch_dtype": "bfloat16"}
            """
        let found = try shape(json)
        #expect((found.tokenBytes, found.attention) == (128 << 10, 32 * 4096))
        #expect(try shape(json, .e4m3).tokenBytes == 64 << 10)
        #expect(try CacheShape(layers: 32, heads: 8, headDim: 128, element: .bf16).tokenBytes == 128 << 10)
    }

    @Test func latentsAndTextPartsAndLayersWithAState() throws {
        // DeepSeek-V2-Lite: 512 + 64 elements a layer.
        let latent = """
            {"num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "hidden_size": 2048, "kv_lora_rank": 512,
             "qk_rope_head_dim": 64, "torch_dtype": "bfloat16"}
            """
        #expect(try shape(latent).tokenBytes == 27 * 576 * 2)
        let nested = """
            {"torch_dtype": "float16", "text_config": {"num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 64,
             "layer_types": ["linear_attention", "full_attention", "sliding_attention", "linear_attention"]}}
            """
        #expect(try shape(nested).tokenBytes == 2 * 2 * 2 * 64 * 2)
    }

    @Test(arguments: [
        ("[]", "config.json"), ("{}", "num_hidden_layers"), (#"{"num_hidden_layers": 2}"#, "num_attention_heads"),
        (#"{"num_hidden_layers": 2, "num_attention_heads": 0, "hidden_size": 8}"#, "num_hidden_layers"),
        (#"{"num_hidden_layers": 9223372036854775807, "num_attention_heads": 1}"#, "num_hidden_layers"),
        (#"{"num_hidden_layers": 2, "num_attention_heads": 2}"#, "head_dim"),
        (#"{"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 9223372036854775807}"#, "head_dim"),
        (#"{"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}"#, "torch_dtype"),
        (
            #"{"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8, "dtype": "float16", "kv_lora_rank": 9223372036854775807, "qk_rope_head_dim": 1}"#,
            "kv_lora_rank"
        ),
        (
            #"{"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8, "dtype": "float16", "num_key_value_heads": -1}"#,
            "geometry.heads"
        ),
    ])
    func whatIsMissingOrHostileIsNamed(json: String, field: String) {
        do {
            _ = try shape(json)
            Issue.record("it was taken")
        } catch { #expect(error.field == field, "\(error)") }
    }
}
