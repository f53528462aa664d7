/// Sizes as people write them.
public enum ByteSize {
    private static let units = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]

    /// What sizes may look like.
    package static let form = "bytes as a number, or text with B, KiB, MiB, GiB or TiB such as \"4GiB\""

    /// Why text is no size.
    package struct Refusal: Error { package var reason: String }

    /// Bytes of a text such as `4096`, `512MiB` or `1.5GiB`. More than a number holds is the largest number.
    package static func read(_ text: String) -> Result<Int, Refusal> {
        func refuse(_ reason: String) -> Result<Int, Refusal> { .failure(Refusal(reason: reason)) }
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }
        guard !digits.isEmpty else { return refuse(text.isEmpty ? "is empty" : "does not begin with digits 0 to 9") }
        guard let number = Double(digits) else { return refuse("\(digits) is no number") }
        guard let (_, shift) = unit.isEmpty ? units[0] : units.first(where: { $0.0 == unit }) else {
            let meant = units.first { $0.0.lowercased() == unit.lowercased() }
            return refuse("there is no unit \(unit)" + (meant.map { " (\($0.0) is meant?)" } ?? ""))
        }
        let bytes = number * Double(1 << shift)
        return .success(bytes < 0x1p62 ? Int(bytes) : .max)
    }

    /// Bytes for people, to a tenth of the largest unit that they fill.
    package static func rounded(_ bytes: Int) -> String {
        let unit = units.last { bytes >= 1 << $0.1 } ?? units[0]
        let tenths = (Double(bytes) / Double(1 << unit.1) * 10).rounded(.down) / 10
        return tenths == tenths.rounded() ? "\(Int(tenths))\(unit.0)" : "\(tenths)\(unit.0)"
    }

    /// Bytes with the largest unit that leaves a whole number.
    package static func text(_ bytes: Int) -> String {
        let unit = units.last { bytes % (1 << $0.1) == 0 && bytes > 0 } ?? units[0]
        return unit.1 == 0 ? "\(bytes)" : "\(bytes >> unit.1)\(unit.0)"
    }
}
