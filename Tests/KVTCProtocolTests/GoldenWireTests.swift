import Foundation
import KVTCProtocol
import Testing

/// One line of Tests/Golden/wire.json.
struct Vector: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let opcode: UInt16
    let status: UInt32
    let id: UInt64
    let hex: String

    var testDescription: String { name }

    var frame: [UInt8] {
        let digits = Array(hex.utf8).map { UInt8(Character(UnicodeScalar($0)).hexDigitValue!) }
        return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }
    var body: [UInt8] { Array(frame.dropFirst(FrameHeader.byteCount)) }
    var listsTensors: Bool { opcode == Opcode.openSession.rawValue }
    var isError: Bool { status & ~Wire.more != 0 }

    static let all: [Vector] = {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../Golden/wire.json")
        // A missing or unreadable file must fail every test that needs it, so there is nothing to recover here.
        return try! JSONDecoder().decode([Vector].self, from: Data(contentsOf: path))
    }()
    static let good = all.filter { !$0.isError }
    static let errors = all.filter(\.isError)
}

func decode<M: WireMessage>(like _: M, _ body: [UInt8]) throws -> M { try M(body: body) }

@Suite struct GoldenWireTests {
    @Test func everyVectorIsKnownAndEveryMessageHasOne() {
        #expect(Set(Vector.good.map(\.name)) == Set(Golden.messages.keys))
        #expect(Set(Vector.errors.map(\.status)) == Set(ErrorCode.allCases.map(\.rawValue)))
        for opcode in Opcode.allCases {
            #expect(Vector.good.contains { $0.opcode == opcode.rawValue })
            #expect(Vector.good.contains { $0.opcode == opcode.rawValue | Opcode.replyBit })
            let (requests, replies) = opcode.forms
            for form in requests as [any WireMessage.Type] + replies {
                #expect(Golden.messages.values.contains { type(of: $0) == form }, "\(form)")
            }
        }
    }

    @Test(arguments: Vector.all) func headerReadsAndWritesTheSame(vector: Vector) throws {
        let (header, fault) = try FrameHeader.parse(Array(vector.frame.prefix(FrameHeader.byteCount)))
        #expect(fault == nil)
        #expect(
            header
                == FrameHeader(
                    opcode: vector.opcode, id: vector.id, status: vector.status, bodyLength: UInt32(vector.body.count)))
        #expect(header.encoded == Array(vector.frame.prefix(FrameHeader.byteCount)))
    }

    @Test(arguments: Vector.good) func bodyReadsAndWritesTheSame(vector: Vector) throws {
        func check<M: WireMessage>(_ expected: M) throws {
            #expect(expected.encodedBody == vector.body)
            #expect(try M(body: vector.body) == expected)
        }
        let message = try #require(Golden.messages[vector.name])
        try check(message)
    }

    @Test(arguments: Vector.errors) func errorReadsAndWritesTheSame(vector: Vector) throws {
        let code = try #require(ErrorCode(rawValue: vector.status))
        #expect(try WireError(status: vector.status, body: vector.body) == Golden.error(code))
        #expect(Golden.error(code).encodedBody() == vector.body)
    }

    @Test func requestsCarryTheirOpcode() throws {
        for vector in Vector.good where vector.opcode & Opcode.replyBit == 0 {
            let request = try #require(Golden.messages[vector.name] as? any WireRequest)
            #expect(type(of: request).opcode.rawValue == vector.opcode)
        }
    }
}
