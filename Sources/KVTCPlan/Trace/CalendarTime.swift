/// A time such as `2026-11-28T19:15:02.250Z`, which ISO 8601 and most logs have, or vLLM's `11-28 19:15:02`. Its zone does not
/// count: of a trace only differences matter.
struct CalendarTime {
    /// Since the year 0, or since the beginning of the year where the text has none.
    let milliseconds: Double

    init?(_ text: String) {
        let numbers = text.prefix(26).split { !($0.isASCII && $0.isNumber) }.map { Int($0) ?? -1 }
        let hasYear = text.prefix { $0.isASCII && $0.isNumber }.count == 4
        let fields = (hasYear ? [] : [0]) + numbers
        guard fields.count >= 6, (1...12).contains(fields[1]), (1...31).contains(fields[2]),
            (0...23).contains(fields[3]),
            (0...59).contains(fields[4]), (0...60).contains(fields[5]), (0...9999).contains(fields[0])
        else { return nil }
        // Days by the civil calendar (Hinnant: chrono-compatible low-level date algorithms).
        let year = fields[0] - (fields[1] <= 2 ? 1 : 0)
        let month = (fields[1] + 9) % 12
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + fields[2] - 1
        let seconds = ((days * 24 + fields[3]) * 60 + fields[4]) * 60 + fields[5]
        let fraction = fields.count > 6 && hasYear ? Double("0.\(text.dropFirst(20).prefix { $0.isNumber })") ?? 0 : 0
        milliseconds = (Double(seconds) + fraction) * 1000
    }

    /// That of a line of a log: what stands around the first that looks like `19:15:02`, behind whatever names process and level.
    init?(inLogLine line: [UInt8]) {
        let start = line.prefix(256)
        func isDigit(_ index: Int) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(start[index]) }
        let clock = start.indices.dropLast(7).first { index in
            (0..<8).allSatisfy { $0 % 3 == 2 ? start[index + $0] == UInt8(ascii: ":") : isDigit(index + $0) }
        }
        guard let clock else { return nil }
        var begin = clock
        while begin > 0, isDigit(begin - 1) || "- T".utf8.contains(start[begin - 1]) { begin -= 1 }
        let text = start[begin...].drop { $0 == UInt8(ascii: " ") }
        self.init(String(decoding: text.prefix(26), as: UTF8.self))
    }
}
