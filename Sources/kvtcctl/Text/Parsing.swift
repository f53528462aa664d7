import ArgumentParser
import KVTCSystem

/// Numbers on the command line. Options take what follows them whatever it looks like (`parsing: .unconditional`), so that
/// `--ttl -5` is told what is allowed and not that a value is missing.
enum Parsed {
    /// A whole number in a range.
    static func whole<T: FixedWidthInteger & Sendable>(_ range: ClosedRange<T>) -> @Sendable (String) throws -> T {
        { text in
            guard let value = T(text), range.contains(value) else {
                throw ValidationError("a whole number from \(range.lowerBound) to \(range.upperBound) is needed")
            }
            return value
        }
    }

    /// A whole number of 32 bits, of something.
    static func number(of things: String) -> @Sendable (String) throws -> UInt32 {
        { text in
            guard let value = UInt32(text) else {
                throw ValidationError("a whole number of \(things) from 0 to \(UInt32.max) is needed")
            }
            return value
        }
    }

    /// A ratio of raw to stored bytes.
    static func ratio(_ text: String) throws -> Float {
        guard let value = Float(text), (1...1000).contains(value) else {
            throw ValidationError("a number from 1 to 1000 is needed, such as 16: raw bytes over stored bytes")
        }
        return value
    }

    /// A relative squared error.
    static func distortion(_ text: String) throws -> Float {
        guard let value = Float(text), value > 0, value < 1 else {
            throw ValidationError("a number above 0 and below 1 is needed, such as 0.01")
        }
        return value
    }

    /// A number in a range.
    static func number(_ range: ClosedRange<Double>) -> @Sendable (String) throws -> Double {
        { text in
            guard let value = Double(text), range.contains(value) else {
                throw ValidationError(
                    "a number from \(Text.plain(range.lowerBound)) to \(Text.plain(range.upperBound)) is needed")
            }
            return value
        }
    }

    /// Bytes, with or without a unit.
    static func size(_ range: ClosedRange<Int>) -> @Sendable (String) throws -> Int {
        { text in
            switch ByteSize.read(text) {
            case .success(let bytes) where range.contains(bytes): return bytes
            case .success:
                throw ValidationError(
                    "\(ByteSize.text(range.lowerBound)) to \(ByteSize.text(range.upperBound)) are allowed")
            case .failure(let refusal): throw ValidationError("'\(text)' \(refusal.reason): \(ByteSize.form)")
            }
        }
    }

    /// A span of time.
    static func seconds(_ range: ClosedRange<Double>) -> @Sendable (String) throws -> Double {
        { text in
            guard let value = Double(text), range.contains(value) else {
                throw ValidationError("from \(range.lowerBound) to \(Int(range.upperBound)) seconds are needed")
            }
            return value
        }
    }

    /// A session's number.
    static func session(_ text: String) throws -> UInt32 {
        guard let value = UInt32(text), value < UInt32.max else {
            throw ValidationError("a session's number is needed, as 'kvtcctl sessions' shows it")
        }
        return value
    }
}
