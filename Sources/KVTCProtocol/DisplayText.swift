extension StringProtocol {
    /// The text as people may be shown it, in a terminal, a log or a page: one line, in which everything is seen and nothing
    /// changes how the rest is. Backslashes, and scalars that don't print, are invisible, or steer a terminal or the direction
    /// of writing, are escaped as in Swift's literals; so is a combining mark that has nothing of the text's own to sit on.
    public var escapedForDisplay: String {
        var result = ""
        var hasBase = false
        for scalar in unicodeScalars {
            let escape: String? =
                switch scalar {
                case "\\": "\\\\"
                case "\n": "\\n"
                case "\r": "\\r"
                case "\t": "\\t"
                case let scalar where scalar.isPrinting && (hasBase || !scalar.properties.isMark): nil
                default: "\\u{\(String(scalar.value, radix: 16))}"
                }
            hasBase = escape == nil
            if let escape { result += escape } else { result.unicodeScalars.append(scalar) }
        }
        return result
    }
}

extension Unicode.Scalar {
    fileprivate var isPrinting: Bool {
        if isASCII { return value >= 0x20 && value != 0x7F }
        // Fillers, variation selectors and others that are letters or marks by category and still leave no trace.
        if properties.isDefaultIgnorableCodePoint { return false }
        return switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }
}

extension Unicode.Scalar.Properties {
    fileprivate var isMark: Bool {
        [.nonspacingMark, .spacingMark, .enclosingMark].contains(generalCategory)
    }
}
