/// Numbers that look random and follow from what they are asked for: every bit matters (Steele, Lea, Flood: Fast splittable
/// pseudorandom number generators, 2014).
enum Mixed {
    /// The step between the states of the generator.
    private static let step: UInt64 = 0x9E37_79B9_7F4A_7C15

    /// A word for a number.
    static func word(_ number: UInt64) -> UInt64 {
        var word = number &* step
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }

    /// A word for several numbers, in their order.
    static func word(_ numbers: UInt64...) -> UInt64 { numbers.reduce(0) { word($0 ^ word($1 &+ 1)) &+ step } }

    /// From 0 up to 1.
    static func share(_ word: UInt64) -> Double { Double(word >> 11) * 0x1p-53 }

    /// From 0 up to a number.
    static func choice(_ word: UInt64, below count: Int) -> Int {
        Int(word.multipliedFullWidth(by: UInt64(count)).high)
    }
}
