import KVTCModel
import KVTCProtocol
import TestSupport
import Testing

@Suite struct HostileWireTests {
    @Test(arguments: Vector.good) func everyTruncationIsRefused(vector: Vector) throws {
        let message = try #require(Golden.messages[vector.name])
        for length in 0..<vector.body.count {
            let error = #expect(throws: WireError.self) {
                _ = try decode(like: message, Array(vector.body.prefix(length)))
            }
            #expect(error?.code == .truncated, "\(vector.name) cut to \(length) bytes")
        }
    }

    @Test(arguments: Vector.good) func trailingBytesAreRefused(vector: Vector) throws {
        let message = try #require(Golden.messages[vector.name])
        let error = #expect(throws: WireError.self) { _ = try decode(like: message, vector.body + [0]) }
        #expect(error?.code == .trailingBytes)
    }

    @Test(arguments: Vector.errors) func errorBodiesAreCheckedLikeOthers(vector: Vector) {
        for length in 0..<vector.body.count {
            #expect(throws: WireError.self) {
                _ = try WireError(status: vector.status, body: Array(vector.body.prefix(length)))
            }
        }
        #expect(throws: WireError.self) { _ = try WireError(status: vector.status, body: vector.body + [0]) }
    }

    // Any four bytes may be a length: each position is overwritten with lengths that overflow 32-bit sums and products.
    @Test(arguments: Vector.good) func overflowingLengthsNeverTrap(vector: Vector) throws {
        let message = try #require(Golden.messages[vector.name])
        let lengths: [UInt32] = [0xFFFF_FFFF, 0x8000_0000, 0x7FFF_FFFF, 0x0400_0001, 0x1000_0000]
        for at in 0..<max(0, vector.body.count - 3) {
            for length in lengths {
                var body = vector.body
                for byte in 0..<4 { body[at + byte] = UInt8(truncatingIfNeeded: length >> UInt32(byte * 8)) }
                _ = try? decode(like: message, body)
            }
        }
    }

    @Test(arguments: Vector.good) func randomBytesNeverTrap(vector: Vector) throws {
        let message = try #require(Golden.messages[vector.name])
        let seed: UInt64 = 20
        var generator = SeededGenerator(seed: seed)
        for round in 0..<500 {
            var body = vector.body
            for _ in 0..<(1 + round % 4) where !body.isEmpty {
                body[Int.random(in: 0..<body.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            guard let read = try? decode(like: message, body) else { continue }
            // What reads must write back to the same bytes: no two bodies mean the same message. But where tensors are
            // listed, tables of frequencies may come in any order, and what is not rotated has an offset that says nothing.
            let again = read.encodedBody
            #expect(again == body || vector.listsTensors, "seed \(seed), round \(round)")
            #expect(try decode(like: message, again).encodedBody == again, "seed \(seed), round \(round)")
        }
    }

    @Test func hostileCountsReserveNothing() {
        var writer = ByteWriter()
        writer.write(UInt32(9))
        writer.write(UInt32(0))
        writer.write(UInt32(0xFFFF_FFFF))
        let error = #expect(throws: WireError.self) { _ = try LookupRequest(body: writer.bytes) }
        #expect(error?.code == .truncated)
        #expect(error?.field == "keys")
    }

    @Test func headerFaultsKeepTheRequestID() throws {
        let good = FrameHeader(opcode: 16, id: 77, status: 0, bodyLength: 0).encoded
        func fault(_ index: Int, _ value: UInt8) throws -> (UInt64, ErrorCode?) {
            var bytes = good
            bytes[index] = value
            let (header, fault) = try FrameHeader.parse(bytes)
            return (header.id, fault?.code)
        }
        #expect(try fault(0, 0x4C) == (77, .badMagic))
        #expect(try fault(4, 2) == (77, .badVersion))
        #expect(try fault(23, 0x04) == (77, nil))
        #expect(try fault(23, 0x05) == (77, .tooLarge))
        #expect(try fault(23, 0xFF) == (77, .tooLarge))
    }

    @Test func valuesOutsideTheirSetAreNamed() throws {
        func field(_ body: [UInt8], like message: some WireMessage) -> String? {
            do { _ = try decode(like: message, body) } catch let error as WireError {
                #expect(error.code == .invalidField)
                return error.field
            } catch { Issue.record(error) }
            return nil
        }
        var policy = Golden.fullPolicy.encodedBody
        policy[8] = 255
        #expect(field(policy, like: Golden.fullPolicy) == "policy.mode")
        policy = Golden.fullPolicy.encodedBody
        policy[11] = 128
        #expect(field(policy, like: Golden.fullPolicy) == "policy.flags")
        for bound: Float in [0, -0.5, 1, .infinity, .nan] {
            var bounded = Golden.boundedPolicy
            bounded.near = bound
            #expect(field(bounded.encodedBody, like: bounded) == "policy.near")
            (bounded.near, bounded.distortionLimit) = (nil, bound)
            #expect(field(bounded.encodedBody, like: bounded) == "policy.distortionLimit")
        }
        policy = Golden.fullPolicy.encodedBody
        policy[15] = 0x7F
        policy[14] = 0xC0
        #expect(field(policy, like: Golden.fullPolicy) == "policy.quality")
        #expect(field([0, 0, 0, 0, 0, 0, 0, 0], like: PositionRange(begin: 0, end: 1)) == "range")
        let layout = PageLayout(element: .f16)
        #expect(field([0, 0, 0, 0], like: layout) == "layout.element")
        #expect(field([1, 3, 0, 0], like: layout) == "layout.order")
        #expect(field([1, 0, 3, 0], like: layout) == "layout.grouping")
        #expect(field([1, 0, 0, 4], like: layout) == "layout.flags")
        #expect(field([2, 0, 0, 0, 0xC3, 0x28], like: JSONReply(json: "")) == "json")
    }
}
