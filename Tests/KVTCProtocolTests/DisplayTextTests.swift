import KVTCProtocol
import Testing

struct DisplayTextTests {
    @Test(arguments: [
        "\u{1B}]0;owned\u{7}\u{1B}[2Jgone\n  7  forged row", "\u{9B}31m", "\u{7F}", "\u{0}", "\r", "\u{85}",
        "a\u{202E}b", "\u{2066}x\u{2069}", "\u{200E}", "\u{061C}", "\u{200B}\u{200D}\u{FEFF}", "\u{2028}\u{2029}",
        "\u{E000}", "\u{10FFFF}", "\u{FFFE}", "\u{378}", "\u{E0041}", "\u{AD}",
        "\u{115F}\u{3164}", "\u{FE0F}", "\u{34F}",
    ])
    func nothingThatSteersOrHidesIsLeft(text: String) {
        let shown = text.escapedForDisplay
        #expect(shown.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value < 0x7F }, "\(shown)")
        #expect(shown.contains("\\"))
    }

    @Test(arguments: [
        ("plain name-1", "plain name-1"), ("日本語 ü e\u{301} हिन्दी", "日本語 ü e\u{301} हिन्दी"), ("🙂", "🙂"), ("\"'=", "\"'="),
        ("a\\n", "a\\\\n"), ("a\nb\tc", "a\\nb\\tc"), ("\u{1B}[31m", "\\u{1b}[31m"), ("\u{202E}", "\\u{202e}"),
        ("\u{301}x", "\\u{301}x"), ("\u{200B}\u{301}", "\\u{200b}\\u{301}"), ("", ""),
        ("e" + String(repeating: "\u{301}", count: 6), "e\u{301}\u{301}\u{301}\u{301}\\u{301}\\u{301}"),
    ])
    func whatPrintsStaysAndTheRestIsSpelledOut(text: String, shown: String) {
        #expect(Array(text.escapedForDisplay.unicodeScalars) == Array(shown.unicodeScalars))
    }

    @Test func aMessageKeepsItsBackslashes() {
        #expect("a\\n \u{1B}[2J\n".visible == "a\\n \\u{1b}[2J\\n")
    }
}
