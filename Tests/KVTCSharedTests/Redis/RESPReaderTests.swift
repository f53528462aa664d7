import TestSupport
import Testing

@testable import KVTCShared

@Suite struct RESPReaderTests {
    private static func read(_ bytes: [UInt8], pieces: [Int] = [], largest: Int = 1 << 20) throws(RESPReader.Failure)
        -> [RESPValue]
    {
        var reader = RESPReader(largest: largest)
        var values: [RESPValue] = []
        var failure: RESPReader.Failure?
        bytes.withUnsafeBytes { all in
            var start = 0
            for end in pieces + [all.count] {
                do throws(RESPReader.Failure) {
                    try reader.read(UnsafeRawBufferPointer(rebasing: all[start..<end])) { values.append($0) }
                } catch { failure = error }
                start = end
            }
        }
        if let failure { throw failure }
        #expect(!reader.isAmidst)
        return values
    }

    private static func written(_ value: RESPValue) -> [UInt8] {
        switch value {
        case .simple(let text): Array("+\(text)\r\n".utf8)
        case .error(let text): Array("-\(text)\r\n".utf8)
        case .integer(let number): Array(":\(number)\r\n".utf8)
        case .bulk(let bytes): Array("$\(bytes.count)\r\n".utf8) + bytes + Array("\r\n".utf8)
        case .null: Array("$-1\r\n".utf8)
        case .array(let values): Array("*\(values.count)\r\n".utf8) + values.flatMap(written)
        }
    }

    private static func random(_ depth: Int, _ generator: inout SeededGenerator) -> RESPValue {
        switch Int.random(in: 0..<(depth == 0 ? 5 : 7), using: &generator) {
        case 0: .simple(["OK", "", "PONG"].randomElement(using: &generator)!)
        case 1: .error("ERR " + String(UInt8.random(in: 0...255, using: &generator)))
        case 2: .integer([0, -1, .max, .min, 4711].randomElement(using: &generator)!)
        case 3: .null
        case 4:
            .bulk(
                (0..<Int.random(in: 0...70, using: &generator)).map { _ in
                    [13, 10, 36, 0, 255].randomElement(using: &generator)!
                })
        default: .array((0..<Int.random(in: 0...4, using: &generator)).map { _ in random(depth - 1, &generator) })
        }
    }

    @Test func anySplitOfTheBytesGivesTheSameValues() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let values = (0..<5).map { _ in RESPReaderTests.random(4, &generator) }
            let bytes = values.flatMap(RESPReaderTests.written)
            let pieces = (0..<Int.random(in: 0...8, using: &generator)).map { _ in
                Int.random(in: 0...bytes.count, using: &generator)
            }
            #expect(try RESPReaderTests.read(bytes, pieces: pieces.sorted()) == values, "seed \(seed)")
            #expect(try RESPReaderTests.read(bytes, pieces: Array(1..<max(1, bytes.count))) == values, "seed \(seed)")
        }
    }

    @Test(arguments: [
        "hello\r\n", "\r\n", "\n", "+OK\n", ":1x\r\n", ":\r\n", ":9223372036854775808\r\n", "$-2\r\n", "$1x\r\n",
        "$99999999999999999999\r\n",
        "$1\r\nab\r\n", "$1\r\na\n\n", "*-2\r\n", "*x\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "HTTP/1.1 400\r\n",
    ])
    func refuses(_ text: String) {
        #expect(throws: RESPReader.Failure.malformed) { try RESPReaderTests.read(Array(text.utf8)) }
    }

    @Test(arguments: ["$1048577\r\n", "$9223372036854775807\r\n", "*9223372036854775807\r\n", "*1000000\r\n"])
    func whatWouldTakeTooMuchMemoryIsRefusedBeforeItComes(_ text: String) {
        #expect(throws: RESPReader.Failure.oversize) { try RESPReaderTests.read(Array(text.utf8)) }
    }

    @Test func whatIsInManyPiecesIsCountedTogether() {
        // Each element is small, and so is each array; all together they are not.
        let part = Array("$1048576\r\n".utf8) + [UInt8](repeating: 7, count: 1 << 20) + Array("\r\n".utf8)
        let many = Array("*100\r\n".utf8) + (0..<100).flatMap { _ in part }
        #expect(throws: RESPReader.Failure.oversize) { try RESPReaderTests.read(many) }
        let lines = Array("+".utf8) + [UInt8](repeating: 65, count: 70_000)
        #expect(throws: RESPReader.Failure.malformed) { try RESPReaderTests.read(lines) }
    }

    @Test func oneAnswerDoesNotCountForTheNext() throws {
        let one = RESPReaderTests.written(.bulk([UInt8](repeating: 7, count: 1 << 20)))
        #expect(try RESPReaderTests.read((0..<40).flatMap { _ in one }).count == 40)
    }
}
