import Glibc

/// How numbers look to people.
enum Text {
    /// Bytes with a binary unit and three digits or so: `412 MiB`.
    static func bytes(_ count: some BinaryInteger) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var value = Double(count)
        var unit = 0
        while value >= 1024, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        return unit == 0 ? "\(count) B" : "\(decimal(value, value < 10 ? 2 : value < 100 ? 1 : 0)) \(units[unit])"
    }

    /// A whole number in groups of three digits.
    static func count(_ number: some BinaryInteger) -> String {
        let digits = Array(String(number))
        var result = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { result.append(" ") }
            result.append(digit)
        }
        return result
    }

    /// A number of things: `1 page`, `2 pages`.
    static func count(_ number: some BinaryInteger, _ one: String, _ many: String? = nil) -> String {
        "\(count(number)) \(number == 1 ? one : many ?? one + "s")"
    }

    /// A number with a fixed count of decimals.
    static func decimal(_ value: Double, _ places: Int) -> String {
        guard value.isFinite else { return "–" }
        let scale = pow(10.0, Double(places))
        let rounded = (value.magnitude * scale).rounded()
        guard rounded < 1e15 else { return "\(value)" }
        let whole = UInt64(rounded / scale)
        let sign = value < 0 && rounded > 0 ? "-" : ""
        guard places > 0 else { return "\(sign)\(whole)" }
        let fraction = String(UInt64(rounded) - whole * UInt64(scale))
        return "\(sign)\(whole)." + String(repeating: "0", count: places - fraction.count) + fraction
    }

    /// A number as short as it is exact: without a fraction where it has none.
    static func plain(_ value: Double) -> String { Int(exactly: value).map { "\($0)" } ?? "\(value)" }

    /// Microseconds with the unit that reads best.
    static func microseconds(_ value: Double) -> String {
        if value < 1000 { return "\(decimal(value, 0)) µs" }
        if value < 1_000_000 { return "\(decimal(value / 1000, value < 10_000 ? 2 : 1)) ms" }
        return "\(decimal(value / 1_000_000, 2)) s"
    }

    /// A span of time in its two largest units; of years only the whole ones.
    static func duration(_ seconds: Double) -> String {
        let total = UInt64(max(seconds, 0))
        let (days, hours, minutes) = (total / 86400, total / 3600 % 24, total / 60 % 60)
        if days >= 365 { return count(days / 365, "year") }
        if days > 0 { return "\(days) d \(hours) h" }
        if hours > 0 { return "\(hours) h \(minutes) min" }
        return minutes > 0 ? "\(minutes) min \(total % 60) s" : "\(total) s"
    }

    /// A bar that is full to the given fraction; anything above nothing shows.
    static func bar(_ fraction: Double, width: Int = 24) -> String {
        let clamped = min(max(fraction, 0), 1)
        let filled = clamped > 0 ? max(Int((clamped * Double(width)).rounded()), 1) : 0
        return Terminal.shown(String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled))
    }
}
