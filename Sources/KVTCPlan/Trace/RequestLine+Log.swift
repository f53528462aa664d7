extension RequestLine {
    /// How an engine's log tells of a prompt.
    private struct Form {
        /// What no other line has.
        var mark: String
        /// What stands before the list of tokens. A prompt's text may have it too: the last one counts.
        var tokens: String
        /// What stands before the prompt's text, which counts where there are no tokens.
        var text: String
        /// The name of the list.
        var field: String
    }

    private static let forms = [
        Form(mark: "Receive: obj=GenerateReqInput(", tokens: ", input_ids=", text: ", text=", field: "input_ids"),
        Form(
            mark: ", prompt_token_ids: ", tokens: ", prompt_token_ids: ", text: ": prompt: ", field: "prompt_token_ids"),
    ]

    /// A line of an engine's log. What is no request, or the same one again, is ``other``.
    init(log line: [UInt8], _ chain: BlockChain) throws(LineError) {
        guard let form = Self.forms.first(where: { line.first($0.mark) != nil }) else {
            self = line.first("Received request ") == nil ? .other : .withoutPrompt
            return
        }
        guard let prompt = try Self.prompt(line, form) else {
            self = .withoutPrompt
            return
        }
        var request = try Self.request(prompt, chain)
        request.time = CalendarTime(inLogLine: line)?.milliseconds
        self = .request(request)
    }

    private static func prompt(_ line: [UInt8], _ form: Form) throws(LineError) -> Prompt? {
        let list = line.last(form.tokens)
        if let list, line[list.upperBound...].first == UInt8(ascii: "[") {
            return .tokens(try numbers(line[(list.upperBound + 1)...], form.field))
        }
        guard let before = line.first(form.text), let quote = line[before.upperBound...].first,
            quote == UInt8(ascii: "'") || quote == UInt8(ascii: "\"")
        else { return nil }
        // As Python writes it, which is equal for what is equal.
        let rest = line[(before.upperBound + 1)..<max(before.upperBound + 1, list?.lowerBound ?? line.endIndex)]
        guard let end = rest.lastIndex(of: quote) else { throw LineError("prompt", "does not end") }
        let text = Array(rest[..<end])
        guard text.first("' ... '") == nil else { throw LineError("prompt", leftOut) }
        return .text(String(decoding: text, as: UTF8.self))
    }

    /// The numbers of a list, behind its bracket.
    private static func numbers(_ bytes: ArraySlice<UInt8>, _ field: String) throws(LineError) -> [UInt32] {
        var numbers: [UInt32] = []
        var number: UInt32?
        for (index, byte) in zip(bytes.indices, bytes) {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                let (shifted, overflow) = (number ?? 0).multipliedReportingOverflow(by: 10)
                let (sum, over) = shifted.addingReportingOverflow(UInt32(byte - UInt8(ascii: "0")))
                guard !overflow, !over else { throw LineError(field, "a token above \(UInt32.max)") }
                number = sum
            case UInt8(ascii: ","), UInt8(ascii: " "), UInt8(ascii: "]"):
                if let token = number { numbers.append(token) }
                number = nil
                guard byte == UInt8(ascii: "]") else { continue }
                if bytes[(index + 1)...].starts(with: " ... ".utf8) { throw LineError(field, leftOut) }
                return numbers
            default: throw LineError(field, "has something else than tokens")
            }
        }
        throw LineError(field, "does not end")
    }

    private static let leftOut = "some of it is left out: have prompts logged in full"
}

extension [UInt8] {
    fileprivate func first(_ text: String) -> Range<Int>? {
        let wanted = Array(text.utf8)
        return find(wanted, in: 0..<Swift.max(0, count - wanted.count + 1))
    }

    fileprivate func last(_ text: String) -> Range<Int>? {
        let wanted = Array(text.utf8)
        return find(wanted, in: (0..<Swift.max(0, count - wanted.count + 1)).reversed())
    }

    private func find(_ wanted: [UInt8], in places: some Sequence<Int>) -> Range<Int>? {
        withUnsafeBufferPointer { bytes in
            for place in places where bytes[place] == wanted[0] {
                if bytes[place..<place + wanted.count].elementsEqual(wanted) { return place..<place + wanted.count }
            }
            return nil
        }
    }
}
