import CLinux
import Glibc
import KVTCCommandLine

/// A line of a screen.
struct ScreenLine: Equatable {
    /// As ``Terminal/shown(_:)`` gives it.
    var text: String
    var isBold = false
}

/// A terminal that is drawn over in place. Only what differs from the picture before is sent, so that a slow link has little to carry.
struct Screen {
    /// Cells; at least one of each.
    private(set) var columns = 80, rows = 24
    private var drawn: [ScreenLine] = []
    private var isBlank = true

    init() throws(TerminalError) {
        let code = clinux_terminal_enter()
        guard code == 0 else { throw TerminalError(code: -code) }
        atexit { clinux_terminal_leave() }
        measure()
    }

    /// Takes the terminal's size anew; what is on it counts for nothing from then on.
    mutating func measure() {
        var size = winsize()
        let isKnown = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 && size.ws_row > 0
        (columns, rows) = isKnown ? (Int(size.ws_col), Int(size.ws_row)) : (80, 24)
        isBlank = true
    }

    /// Gives the terminal back for as long as the process is stopped.
    mutating func suspend() {
        clinux_terminal_leave()
        raise(SIGSTOP)
        resume()
    }

    /// Takes the terminal again, whoever had it meanwhile.
    mutating func resume() {
        _ = clinux_terminal_enter()
        measure()
    }

    /// Draws lines from the top, as many as there is room for.
    mutating func draw(_ lines: [ScreenLine]) {
        let lines = lines.prefix(rows).map {
            ScreenLine(text: Terminal.clipped($0.text, to: columns), isBold: $0.isBold && Terminal.isStyled)
        }
        let text = Screen.change(from: isBlank ? nil : drawn, to: lines)
        (drawn, isBlank) = (lines, false)
        guard !text.isEmpty else { return }
        print(text, terminator: "")
        StandardOutput.flush()
    }

    /// What makes one picture of another; nil: of whatever is there.
    static func change(from before: [ScreenLine]?, to lines: [ScreenLine]) -> String {
        var text = before == nil ? "\u{1B}[H\u{1B}[2J" : ""
        for row in 0..<max(lines.count, before?.count ?? 0) {
            let new = row < lines.count ? lines[row] : ScreenLine(text: "")
            let old = before.flatMap { row < $0.count ? $0[row] : nil } ?? ScreenLine(text: "")
            guard new != old else { continue }
            // A line goes on where it begins to differ.
            let kept = new.isBold == old.isBold ? new.text.commonPrefix(with: old.text) : ""
            let rest = new.text.dropFirst(kept.count)
            text += "\u{1B}[\(row + 1);\(Terminal.width(kept) + 1)H"
            text += new.isBold && !rest.isEmpty ? "\u{1B}[1m\(rest)\u{1B}[0m" : String(rest)
            if Terminal.width(old.text) > Terminal.width(new.text) || old.isBold != new.isBold { text += "\u{1B}[K" }
        }
        return text
    }
}

/// Why a terminal cannot be drawn on.
struct TerminalError: Error, CustomStringConvertible {
    var code: Int32
    var description: String { "the terminal cannot be drawn on: \(String(cString: strerror(code)))" }
}

extension String {
    /// The characters that both begin with.
    fileprivate func commonPrefix(with other: String) -> String {
        String(zip(self, other).prefix { $0 == $1 }.map(\.0))
    }
}
