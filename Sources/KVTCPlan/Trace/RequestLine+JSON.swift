import FoundationEssentials

extension RequestLine {
    /// A line that begins as a JSON object does.
    init(json line: [UInt8], _ chain: BlockChain) throws(LineError) {
        let fields: Fields
        do {
            fields = try JSONDecoder().decode(Fields.self, from: Data(line))
        } catch let error as DecodingError {
            throw LineError(error)
        } catch let error as LineError {
            throw error
        } catch { throw LineError("", "no JSON: \(error)") }
        if let hashes = fields.hashIds {
            self = .request(try Self.hashed(hashes, fields, chain))
        } else if let event = fields.event {
            self = try RequestLine(sglang: event, fields, chain)
        } else if let prompt = fields.prompt ?? fields.body?.prompt {
            self = .request(try Self.request(prompt, fields, chain))
        } else {
            throw LineError("", "a JSON object without hash_ids, messages, prompt or event is no request")
        }
    }

    private static func hashed(_ hashes: [UInt64], _ fields: Fields, _ chain: BlockChain) throws(LineError) -> Request {
        guard let tokens = fields.inputLength else { throw LineError("input_length", "is missing") }
        try check(tokens, "input_length")
        let blocks = (tokens - 1) / chain.blockTokens + 1
        guard hashes.count == blocks else {
            throw LineError(
                "hash_ids", "\(hashes.count) of them, but \(tokens) tokens are \(blocks) blocks of \(chain.blockTokens)"
            )
        }
        if let output = fields.outputLength, !(0...Trace.maximumTokens).contains(output) {
            throw LineError("output_length", "\(output); 0 to \(Trace.maximumTokens) are allowed")
        }
        var time: Double?
        if case .number(let milliseconds) = fields.timestamp { time = milliseconds }
        return Request(time: time, inputTokens: tokens, outputTokens: fields.outputLength, hashes: hashes)
    }

    private static func request(_ prompt: Prompt, _ fields: Fields, _ chain: BlockChain) throws(LineError) -> Request {
        var request = try RequestLine.request(prompt, chain)
        request.time = (fields.timestamp ?? fields.created)?.milliseconds
        request.outputTokens = fields.usage?.completionTokens
        return request
    }

    /// SGLang's log in JSON: a request as it came in has its prompt from level 2 on, in full from level 3 on.
    private init(sglang event: String, _ fields: Fields, _ chain: BlockChain) throws(LineError) {
        // The same request once more, before it is tokenised or when it is done.
        guard event == "request.received" else {
            self = .other
            return
        }
        guard let object = fields.obj else { throw LineError("obj", "is missing") }
        guard let prompt = object.inputIds ?? object.text else {
            self = .withoutPrompt
            return
        }
        self = .request(try Self.request(prompt, fields, chain))
    }

    static func request(_ prompt: Prompt, _ chain: BlockChain) throws(LineError) -> Request {
        switch prompt {
        case .tokens(let tokens):
            try check(tokens.count, "prompt")
            return Request(inputTokens: tokens.count, hashes: chain.hashes(of: tokens))
        case .text(let text):
            guard !text.isEmpty else { throw LineError("prompt", "is empty") }
            let (tokens, hashes) = chain.hashes(of: text)
            try check(tokens, "prompt")
            return Request(inputTokens: tokens, hashes: hashes)
        }
    }

    private static func check(_ tokens: Int, _ field: String) throws(LineError) {
        guard (1...Trace.maximumTokens).contains(tokens) else {
            throw LineError(field, "\(tokens) tokens; 1 to \(Trace.maximumTokens) are allowed")
        }
    }
}

extension LineError {
    /// What a decoder found wrong, without its types.
    fileprivate init(_ error: DecodingError) {
        func name(_ context: DecodingError.Context) -> String {
            context.codingPath.reduce("") { path, key in
                key.intValue.map { "\(path)[\($0)]" } ?? (path.isEmpty ? key.stringValue : "\(path).\(key.stringValue)")
            }
        }
        switch error {
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            self.init(name(context), "has a value of another kind than it should")
        case .keyNotFound(let key, let context):
            let path = name(context)
            self.init(path.isEmpty ? key.stringValue : "\(path).\(key.stringValue)", "is missing")
        case .dataCorrupted(let context):
            let path = name(context)
            self.init(path, path.isEmpty ? "no JSON" : "has a value that is out of range or malformed")
        @unknown default: self.init("", "no JSON")
        }
    }
}
