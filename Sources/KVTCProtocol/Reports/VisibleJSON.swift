/// JSON documents that may be shown in a terminal as they are.
extension String {
    /// A JSON document with everything escaped that would not be seen or would steer a terminal. The document says the same:
    /// such characters are found inside of its strings only.
    public var visibleJSON: String {
        guard !unicodeScalars.allSatisfy(\.isASCIIPrinting) else { return self }
        var display = DisplayFilter()
        return unicodeScalars.reduce(into: "") { result, scalar in
            if display.shows(scalar) {
                result.unicodeScalars.append(scalar)
            } else {
                for unit in scalar.utf16 {
                    let digits = String(unit, radix: 16)
                    result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                }
            }
        }
    }
}

extension Unicode.Scalar {
    fileprivate var isASCIIPrinting: Bool { isASCII && value >= 0x20 && value != 0x7F }
}
