/// Takes a server's answers out of its bytes, in whatever pieces these come.
///
/// What a server claims is bounded before it costs memory: bytes of a bulk, bytes of a whole answer (each element of an array counts as
/// ``perElement``), length of a line, depth of arrays.
package struct RESPReader {
    /// Why nothing that follows means anything.
    package enum Failure: Error { case malformed, oversize }

    static let longestLine = 64 << 10
    static let deepest = 8
    static let perElement = 64
    /// A list of a large cluster's slots is that long even where values are short.
    static let leastAnswer = 16 << 20

    private let largest: Int
    private var line: [UInt8] = []
    private var body: [UInt8] = []
    /// Bytes of the bulk that are still to come, and of the end of its line.
    private var missing = 0
    private var ending = 0
    private var isInBulk = false
    private var arrays: [(count: Int, values: [RESPValue])] = []
    private var spent = 0

    /// - Parameter largest: Bytes of a bulk.
    package init(largest: Int) { self.largest = largest }

    /// Whether an answer has begun and not ended.
    package var isAmidst: Bool { isInBulk || !line.isEmpty || !arrays.isEmpty }

    /// Takes the next bytes and hands out each answer that they complete. After a failure nothing that follows means anything.
    package mutating func read(_ bytes: UnsafeRawBufferPointer, _ each: (RESPValue) -> Void) throws(Failure) {
        var rest = bytes[...]
        while !rest.isEmpty {
            if isInBulk {
                try readBulk(&rest, each)
            } else {
                let end = rest.firstIndex(of: 0x0A)
                line.append(contentsOf: rest[..<(end ?? rest.endIndex)])
                guard line.count <= Self.longestLine else { throw .malformed }
                guard let end else { return }
                rest = rest[(end + 1)...]
                guard line.popLast() == 0x0D else { throw .malformed }
                let whole = line
                line.removeAll(keepingCapacity: true)
                try take(whole, each)
            }
        }
    }

    private mutating func readBulk(
        _ rest: inout Slice<UnsafeRawBufferPointer>, _ each: (RESPValue) -> Void
    ) throws(Failure) {
        let part = rest.prefix(missing)
        body.append(contentsOf: UnsafeRawBufferPointer(rebasing: part))
        missing -= part.count
        rest = rest[part.endIndex...]
        while missing == 0, ending > 0, let byte = rest.first {
            guard byte == (ending == 2 ? 0x0D : 0x0A) else { throw .malformed }
            ending -= 1
            rest = rest.dropFirst()
        }
        guard missing == 0, ending == 0 else { return }
        isInBulk = false
        let whole = body
        body = []
        deliver(.bulk(whole), each)
    }

    private mutating func take(_ line: [UInt8], _ each: (RESPValue) -> Void) throws(Failure) {
        guard let kind = line.first else { throw .malformed }
        let text = line[1...]
        try spend(Self.perElement + text.count)
        switch kind {
        case UInt8(ascii: "+"): deliver(.simple(String(decoding: text, as: UTF8.self)), each)
        case UInt8(ascii: "-"): deliver(.error(String(decoding: text, as: UTF8.self)), each)
        case UInt8(ascii: ":"):
            guard let number = Self.number(text) else { throw .malformed }
            deliver(.integer(number), each)
        case UInt8(ascii: "$"):
            guard let length = Self.number(text).flatMap(Int.init(exactly:)), length >= -1 else { throw .malformed }
            guard length >= 0 else { return deliver(.null, each) }
            guard length <= largest else { throw .oversize }
            try spend(length)
            (isInBulk, missing, ending) = (true, length, 2)
            // More only as it comes.
            body.reserveCapacity(min(length, 1 << 20))
        case UInt8(ascii: "*"):
            guard let count = Self.number(text).flatMap(Int.init(exactly:)), count >= -1 else { throw .malformed }
            guard count >= 0 else { return deliver(.null, each) }
            let (least, overflow) = count.multipliedReportingOverflow(by: Self.perElement)
            guard !overflow, least <= limit - spent else { throw .oversize }
            guard arrays.count < Self.deepest else { throw .malformed }
            guard count > 0 else { return deliver(.array([]), each) }
            arrays.append((count, []))
        default: throw .malformed
        }
    }

    private var limit: Int { max(largest, Self.leastAnswer) + Self.longestLine }

    private mutating func spend(_ bytes: Int) throws(Failure) {
        guard bytes <= limit - spent else { throw .oversize }
        spent += bytes
    }

    private mutating func deliver(_ value: RESPValue, _ each: (RESPValue) -> Void) {
        var value = value
        while !arrays.isEmpty {
            arrays[arrays.count - 1].values.append(value)
            guard arrays[arrays.count - 1].values.count == arrays[arrays.count - 1].count else { return }
            value = .array(arrays.removeLast().values)
        }
        spent = 0
        each(value)
    }

    private static func number(_ text: ArraySlice<UInt8>) -> Int64? {
        // Int64(_:) takes a sign and digits and nothing else, and no more than fits.
        text.count <= 20 ? Int64(String(decoding: text, as: UTF8.self)) : nil
    }
}
