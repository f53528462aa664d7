import KVTCPlan
import Testing

@Suite struct TraceReaderTests {
    private func read(_ lines: String..., blockTokens: Int = 4) throws -> TraceReader {
        var reader = TraceReader(blockTokens: blockTokens, bytesPerToken: 1)
        for line in lines { try reader.read(Array(line.utf8)) }
        return reader
    }

    /// The blocks of each request.
    private func blocks(_ reader: TraceReader) -> [[UInt32]] {
        reader.trace.requests.map { Array(reader.trace.blocks[$0.blocks]) }
    }

    private func refusal(_ line: String, blockTokens: Int = 4) -> TraceError? {
        do { _ = try read("", line, blockTokens: blockTokens) } catch let error as TraceError { return error } catch {}
        return nil
    }

    @Test func mooncakesForm() throws {
        let reader = try read(
            #"{"timestamp": 1000, "input_length": 9, "output_length": 5, "hash_ids": [7, 18446744073709551615, 3]}"#,
            #"{"timestamp": 3500, "input_length": 8, "hash_ids": [7, 18446744073709551615]}"# + "\r")
        #expect(blocks(reader) == [[0, 1, 2], [0, 1]])
        #expect(reader.trace.seconds == 2.5)
        #expect((reader.trace.inputTokens, reader.trace.outputTokens, reader.trace.distinctBlocks) == (17, 5, 3))
    }

    @Test func openAIsForm() throws {
        let reader = try read(
            #"{"messages": [{"role": "user", "content": "abcdefgh"}], "created": 1700000000}"#,
            // Members in another order are the same message; so is what stands under "body".
            #"{"body": {"messages": [{"content": "abcdefgh", "role": "user"}, {"role": "user", "content": [{"text": "x"}]}]}}"#,
            #"{"prompt": "abcdefgh", "timestamp": "2026-11-28T19:15:02.250Z"}"#, #"{"prompt": [1, 2, 3, 4, 5]}"#,
            #"{"prompt": [1, 2, 3, 4, 6, 7, 8, 9], "usage": {"completion_tokens": 3}}"#)
        let found = blocks(reader)
        #expect(found[0].dropLast() == found[1][..<(found[0].count - 1)])
        #expect(found[2].count == 2)
        #expect(found[3][0] == found[4][0] && found[3][1] != found[4][1])
        #expect(reader.trace.requests.map(\.outputTokens) == [nil, nil, nil, nil, 3])
    }

    @Test func equalBlocksAfterUnequalOnesDiffer() throws {
        let found = blocks(try read(#"{"prompt": "aaaabbbb"}"#, #"{"prompt": "ccccbbbb"}"#, #"{"prompt": "aaaabbbb"}"#))
        #expect(found[0] == found[2] && found[0][1] != found[1][1])
    }

    @Test func vLLMsLog() throws {
        let reader = try read(
            "INFO 11-28 19:15:02 [api_server.py:10] Started server process",
            "DEBUG 11-28 19:15:02 [serve/.../request_logger.py:49] Request cmpl-1 details: prompt: ', prompt_token_ids: [9]', "
                + "prompt_token_ids: [1, 2, 3, 4, 5], prompt_embeds shape: None.",
            "INFO 11-28 19:15:02 [request_logger.py:58] Received request cmpl-1: params: SamplingParams(n=1), lora_request: None.",
            "(APIServer pid=7) DEBUG 11-28 19:16:02 [request_logger.py:49] Request cmpl-2 details: prompt: 'abcd\\n', "
                + "prompt_token_ids: None, prompt_embeds shape: None.")
        #expect(blocks(reader).map(\.count) == [2, 2])
        #expect(reader.trace.requests[0].inputTokens == 5)
        #expect((reader.passedOver, reader.withoutPrompt) == (1, 1))
        #expect(reader.trace.seconds == 60)
    }

    @Test func sglangsLog() throws {
        let reader = try read(
            #"{"timestamp": "2026-11-28T19:15:02.250000", "event": "request.received", "rid": "a", "obj": {"input_ids": [1, 2, 3, 4, 5]}}"#,
            #"{"timestamp": "2026-11-28T19:15:03.250000", "event": "request.finished", "rid": "a", "obj": {"input_ids": [1, 2]}}"#,
            #"{"timestamp": "2026-11-28T19:15:04.250000", "event": "request.received", "rid": "b", "obj": {"rid": "b"}}"#,
            "[2026-11-28 19:15:05] Receive: obj=GenerateReqInput(rid='c', text=None, input_ids=[1, 2, 3, 4, 6], stream=False)",
            "[2026-11-28 19:15:06] Receive: obj=GenerateReqInput(rid='d', text='abcdefgh', input_ids=None, stream=False)",
            "[2026-11-28 19:15:07] Receive: obj=GenerateReqInput(rid='e')")
        let found = blocks(reader)
        #expect(found.map(\.count) == [2, 2, 2])
        #expect(found[0][0] == found[1][0] && found[0][1] != found[1][1])
        #expect((reader.passedOver, reader.withoutPrompt) == (1, 2))
        #expect(reader.trace.seconds == 3.75)
    }

    @Test(arguments: [
        ("{", "", "no JSON"),
        (#"{"a": 1}"#, "", "no request"),
        (#"{"hash_ids": [1]}"#, "input_length", "is missing"),
        (#"{"hash_ids": [1], "input_length": 5}"#, "hash_ids", "2 blocks of 4"),
        (#"{"hash_ids": [], "input_length": 0}"#, "input_length", "0 tokens"),
        (#"{"hash_ids": [1], "input_length": -9223372036854775808}"#, "input_length", "1 to"),
        (#"{"hash_ids": [1], "input_length": 9223372036854775807}"#, "input_length", "1 to"),
        (#"{"hash_ids": [1], "input_length": 1e99}"#, "input_length", "out of range"),
        (#"{"hash_ids": [1], "input_length": 4, "output_length": -1}"#, "output_length", "0 to"),
        (#"{"hash_ids": [-1], "input_length": 4}"#, "hash_ids", "out of range"),
        (#"{"hash_ids": ["a"], "input_length": 4}"#, "hash_ids[0]", "another kind"),
        (#"{"hash_ids": [1], "input_length": "4"}"#, "input_length", "another kind"),
        (#"{"prompt": ""}"#, "prompt", "empty"),
        (#"{"prompt": []}"#, "prompt", "0 tokens"),
        (#"{"prompt": [-1]}"#, "prompt", "out of range"),
        (#"{"prompt": [4294967296]}"#, "prompt", "out of range"),
        (#"{"prompt": {"a": 1}}"#, "prompt", "another kind"),
        (#"{"messages": "hello"}"#, "messages", "another kind"),
        (#"{"event": "request.received"}"#, "obj", "is missing"),
        (#"{"event": "request.received", "obj": {"input_ids": [1, "...", 2]}}"#, "obj.input_ids[1]", "another kind"),
        ("x: prompt: 'a', prompt_token_ids: [1, 2", "prompt_token_ids", "does not end"),
        ("x: prompt: 'a', prompt_token_ids: [1, x]", "prompt_token_ids", "else than tokens"),
        ("x: prompt: 'a', prompt_token_ids: [99999999999]", "prompt_token_ids", "above 4294967295"),
        ("x: prompt: 'a, prompt_token_ids: None", "prompt", "does not end"),
        ("Receive: obj=GenerateReqInput(text=None, input_ids=[1, 2] ... [8, 9])", "input_ids", "left out"),
        ("Receive: obj=GenerateReqInput(rid=1, text='ab' ... 'yz', input_ids=None)", "prompt", "left out"),
    ])
    func aLineThatIsWrongIsNamedWithItsField(line: String, field: String, message: String) throws {
        let error = try #require(refusal(line))
        #expect(error.line == 2)
        #expect(error.field == field, "\(error)")
        #expect(error.message.contains(message), "\(error)")
    }

    @Test func aLineThatIsWrongChangesNothing() throws {
        var reader = try read(#"{"prompt": "abcd"}"#)
        #expect(throws: TraceError.self) { try reader.read(Array(#"{"hash_ids": [1], "input_length": 9}"#.utf8)) }
        #expect((reader.lines, reader.trace.requests.count, reader.trace.distinctBlocks) == (2, 1, 1))
        try reader.read(Array(#"{"prompt": "abcd"}"#.utf8))
        #expect(reader.trace.requests.count == 2)
    }

    @Test func deepJSONIsRefusedAndNotFollowed() {
        let deep = #"{"messages": "# + String(repeating: "[", count: 100_000)
        #expect(refusal(deep) != nil)
    }
}
