/// Text, numbers and the other values that have no parts.
extension TOMLReader {
    /// Text in any of the four kinds of quotes.
    mutating func string() throws(Failure) -> String {
        let isLong = next(is: "\"\"\"") || next(is: "'''")
        let quote = next!
        var text: [UInt8] = []
        skip(isLong ? 3 : 1)
        if isLong { skipLineEnd() }
        while let byte = next {
            switch byte {
            case quote where !isLong:
                skip()
                return String(decoding: text, as: UTF8.self)
            case quote where next(is: "\"\"\"") || next(is: "'''"):
                // Up to two quotes more belong to the text.
                let start = offset
                skip(3)
                while next == quote, offset < start + 5 { skip() }
                text += repeatElement(quote, count: offset - start - 3)
                return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\") where quote == UInt8(ascii: "\""):
                text += try escape(isLong: isLong).utf8
            case UInt8(ascii: "\n"), UInt8(ascii: "\r"):
                guard isLong else { throw expected("the quote that ends the text") }
                fallthrough
            default:
                text.append(byte)
                skip()
            }
        }
        throw expected("the quote that ends the text")
    }

    private mutating func skipLineEnd() {
        if next(is: "\r\n") { skip() }
        if next == UInt8(ascii: "\n") { skip() }
    }

    /// What a backslash and what follows it stand for.
    private mutating func escape(isLong: Bool) throws(Failure) -> String {
        let place = place
        skip()
        let simple: [UInt8: String] = [
            UInt8(ascii: "b"): "\u{8}", UInt8(ascii: "t"): "\t", UInt8(ascii: "n"): "\n", UInt8(ascii: "f"): "\u{C}",
            UInt8(ascii: "r"): "\r", UInt8(ascii: "\""): "\"", UInt8(ascii: "\\"): "\\",
        ]
        if let byte = next, let character = simple[byte] {
            skip()
            return character
        }
        if next == UInt8(ascii: "u") || next == UInt8(ascii: "U") {
            let count = next == UInt8(ascii: "u") ? 4 : 8
            skip()
            let start = offset
            for _ in 0..<count {
                guard let byte = next, Character(Unicode.Scalar(byte)).isHexDigit else { break }
                skip()
            }
            let digits = text(from: start)
            guard digits.utf8.count == count, let scalar = UInt32(digits, radix: 16).flatMap(Unicode.Scalar.init) else {
                throw Failure(place: place, message: "the escape stands for no character")
            }
            return String(Character(scalar))
        }
        // At the end of a line it takes away all space up to what comes next.
        let start = offset
        skip { " \t\r\n".utf8.contains($0) }
        guard isLong, text(from: start).utf8.contains(UInt8(ascii: "\n")) else {
            throw Failure(place: place, message: "there is no such escape; write \\\\ for a backslash")
        }
        return ""
    }

    /// A word: true or false, a number, a date or a time.
    mutating func scalar() throws(Failure) -> ConfigurationValue {
        let (start, place) = (offset, place)
        skip { !" \t\r\n,[]{}#=\"'".utf8.contains($0) }
        var word = text(from: start)
        // A date and a time may have a space between them.
        if word.wholeMatch(of: /\d{4}-\d\d-\d\d/) != nil, next == UInt8(ascii: " ") {
            let before = self
            skip()
            skip { !" \t\r\n,[]{}#=\"'".utf8.contains($0) }
            if text(from: start).wholeMatch(of: /.{10} \d\d:.*/) != nil {
                word = text(from: start)
            } else {
                self = before
            }
        }
        guard !word.isEmpty else { throw expected("a value") }
        if word == "true" || word == "false" { return .other("true or false") }
        let digits = word.replacing("_", with: "")
        if word.wholeMatch(of: /[+-]?(0|[1-9](_?\d)*)/) != nil {
            guard let number = Int(digits) else {
                throw Failure(place: place, message: "\(word) does not fit in 64 bits")
            }
            return .integer(number)
        }
        for (pattern, radix) in [
            (/0x[0-9A-Fa-f](_?[0-9A-Fa-f])*/, 16), (/0o[0-7](_?[0-7])*/, 8), (/0b[01](_?[01])*/, 2),
        ] where word.wholeMatch(of: pattern) != nil {
            guard let number = Int(digits.dropFirst(2), radix: radix) else {
                throw Failure(place: place, message: "\(word) does not fit in 64 bits")
            }
            return .integer(number)
        }
        if word.wholeMatch(of: /[+-]?((0|[1-9](_?\d)*)(\.\d(_?\d)*)?([eE][+-]?\d(_?\d)*)?|inf|nan)/) != nil {
            return .other("a number with a point")
        }
        if word.wholeMatch(
            of: /(\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?)?|\d\d:\d\d:\d\d(\.\d+)?)/) != nil
        {
            return .other("a date or a time")
        }
        throw Failure(place: place, message: "\(word) is no value; text needs quotes")
    }
}
