/// Reads a trace line by line. Each line says by itself what it is, so that a log may be mixed with other lines:
///
/// - Mooncake's form: `{"timestamp", "input_length", "output_length", "hash_ids"}`, with milliseconds and chained hashes of blocks;
/// - OpenAI's form: `{"messages"}`, `{"prompt"}` or the same under `"body"`;
/// - SGLang's log of requests, as JSON or as text;
/// - vLLM's log of requests, with prompts.
///
/// What begins with `{` and is none of them is an error; any other line is passed over.
public struct TraceReader {
    /// What was read so far.
    public private(set) var trace: Trace
    /// Lines so far.
    public private(set) var lines = 0
    /// Lines that are no requests and do not look like any.
    public private(set) var passedOver = 0
    /// Requests in a log that tells nothing of their prompts.
    public private(set) var withoutPrompt = 0

    private let chain: BlockChain
    private var firstTime: Double?

    /// - Parameters:
    ///   - blockTokens: tokens of a block, 1 or more.
    ///   - bytesPerToken: what a token of text takes where a trace has no tokens, above 0.
    public init(blockTokens: Int = 512, bytesPerToken: Double = 4) {
        precondition(bytesPerToken > 0)
        trace = Trace(blockTokens: blockTokens)
        chain = BlockChain(blockTokens: blockTokens, bytesPerToken: bytesPerToken)
    }

    /// Reads the next line, without its end. One that throws has changed nothing.
    public mutating func read(_ line: [UInt8]) throws(TraceError) {
        lines += 1
        let line = line.last == UInt8(ascii: "\r") ? Array(line.dropLast()) : line
        do throws(LineError) {
            let found =
                try line.first == UInt8(ascii: "{") ? RequestLine(json: line, chain) : RequestLine(log: line, chain)
            switch found {
            case .request(let request): add(request)
            case .withoutPrompt: withoutPrompt += 1
            case .other: passedOver += 1
            }
        } catch { throw TraceError(line: lines, field: error.field, message: error.message) }
    }

    /// Counts the next line as one that is wrong as a whole.
    public mutating func refuse(_ message: String) -> TraceError {
        lines += 1
        return TraceError(line: lines, field: "", message: message)
    }

    private mutating func add(_ request: RequestLine.Request) {
        if firstTime == nil { firstTime = request.time }
        trace.add(
            time: request.time.flatMap { time in firstTime.map { time - $0 } }, inputTokens: request.inputTokens,
            outputTokens: request.outputTokens, hashes: request.hashes)
    }
}

/// What a line says.
enum RequestLine {
    /// A request. `time` in milliseconds since whenever.
    struct Request {
        var time: Double?
        var inputTokens: Int
        var outputTokens: Int?
        var hashes: [UInt64]
    }

    case request(Request)
    /// A request of which only the rest is told.
    case withoutPrompt
    /// Something else.
    case other
}
