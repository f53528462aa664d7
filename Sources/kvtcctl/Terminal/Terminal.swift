import CLinux
import Glibc
import KVTCProtocol

/// What the standard streams lead to, and what may be written there.
enum Terminal {
    /// Whether escape sequences reach a terminal that wants them.
    static let isStyled = isCapable(STDOUT_FILENO) && (variable("NO_COLOR") ?? "").isEmpty

    /// Whether a line can be drawn over.
    static let canRedraw = isCapable(STDERR_FILENO)

    /// Whether all of the terminal can be drawn on, and keys be heard.
    static let canDraw = isCapable(STDOUT_FILENO) && isatty(STDIN_FILENO) == 1

    private static func isCapable(_ stream: Int32) -> Bool {
        let kind = variable("TERM") ?? ""
        return isatty(stream) == 1 && !kind.isEmpty && kind != "dumb"
    }

    /// Cells of a line: as told by COLUMNS, else those of the terminal; nil for a file or a pipe.
    static let columns: Int? = {
        if let told = variable("COLUMNS").flatMap({ Int($0) }), told > 0 { return told }
        var size = winsize()
        guard isatty(STDOUT_FILENO) == 1 else { return nil }
        return ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
    }()

    /// Whether the locale's encoding is UTF-8. POSIX names what decides: the first of three variables that is set.
    static let isUnicode: Bool = {
        let name = ["LC_ALL", "LC_CTYPE", "LANG"].lazy.compactMap(variable).first { !$0.isEmpty } ?? "C"
        let spelled = name.lowercased()
        guard spelled.contains("utf-8") || spelled.contains("utf8") else { return false }
        // For the widths of characters; every UTF-8 locale has the same, and one of them need not be installed.
        return setlocale(LC_CTYPE, name) != nil || setlocale(LC_CTYPE, "C.UTF-8") != nil
    }()

    private static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

    /// The text with everything escaped that would not be seen, would steer the terminal, or that the locale can't show; of
    /// the program's own signs there is another way to write them.
    static func shown(_ text: String) -> String {
        if isUnicode { return text.visible }
        return text.unicodeScalars.reduce(into: "") { result, scalar in
            if scalar.isASCII, scalar.value >= 0x20, scalar.value != 0x7F {
                result.unicodeScalars.append(scalar)
            } else {
                result += plain[scalar] ?? "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
    }

    private static let plain: [Unicode.Scalar: String] = [
        "█": "#", "░": ".", "–": "-", "×": "x", "≤": "<=", "µ": "u", "…": "...",
    ]

    /// Cells that a text of ``shown(_:)`` takes.
    static func width(_ text: String) -> Int {
        text.unicodeScalars.reduce(0) { sum, scalar in
            sum + (scalar.isASCII ? 1 : max(Int(clinux_width(scalar.value)), 0))
        }
    }

    /// The beginning of a shown text, in at most so many cells, marked where it is not all.
    static func clipped(_ text: String, to cells: Int) -> String {
        guard width(text) > cells else { return text }
        let mark = shown("…")
        var (result, used) = ("", width(mark))
        for character in text {
            used += width(String(character))
            guard used <= cells else { break }
            result.append(character)
        }
        return result + mark
    }

    /// A sentence in lines of the terminal's width, all of them behind a margin, those after the first indented.
    static func wrapped(_ text: String, margin: Int = 0, indent: Int = 0) -> [String] {
        let limit = max((columns ?? 80) - margin, 20)
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ", omittingEmptySubsequences: false) {
            if !line.isEmpty, width(line) + 1 + width(String(word)) > limit {
                lines.append(line)
                line = String(repeating: " ", count: indent) + word
            } else {
                line += line.isEmpty && lines.isEmpty ? String(word) : " " + word
            }
        }
        let blank = String(repeating: " ", count: margin)
        return (lines + [line]).map { blank + $0 }
    }

    /// Text in bold where the terminal can.
    static func bold(_ text: String) -> String { isStyled ? "\u{1B}[1m\(text)\u{1B}[0m" : text }

    /// Writes results, line by line.
    static func show(_ lines: [String]) { print(lines.joined(separator: "\n")) }
}
