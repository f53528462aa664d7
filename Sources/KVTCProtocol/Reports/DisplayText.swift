extension StringProtocol {
    /// The text as people may be shown it, in a terminal, a log or a page: one line, in which everything is seen and nothing
    /// changes how the rest is. Backslashes, and scalars that don't print, are invisible, or steer a terminal or the direction
    /// of writing, are escaped as in Swift's literals; so is a combining mark that has nothing of the text's own to sit on, or
    /// sits on too many others.
    public var escapedForDisplay: String { escaped { $0 == "\\" } }

    /// The same of a message, in which names may be escaped already: backslashes stay.
    public var visible: String { escaped { _ in false } }

    private func escaped(also isEscaped: (Unicode.Scalar) -> Bool) -> String {
        var display = DisplayFilter()
        return unicodeScalars.reduce(into: "") { result, scalar in
            if !isEscaped(scalar), display.shows(scalar) {
                result.unicodeScalars.append(scalar)
                return
            }
            display = DisplayFilter()
            switch scalar {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            default: result += "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
    }
}

/// Which scalars of a text can be shown as they are, asked one after the other.
struct DisplayFilter {
    /// No writing has more on one letter; piles of them cover the lines around.
    private static let marksOnALetter = 4
    private var room = 0

    mutating func shows(_ scalar: Unicode.Scalar) -> Bool {
        let isMark = scalar.properties.isMark
        let shows = scalar.isPrinting && (!isMark || room > 0)
        room = !shows ? 0 : isMark ? room - 1 : DisplayFilter.marksOnALetter
        return shows
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
