import Foundation
import KVTCStore
import TestSupport
import Testing

@testable import KVTCShared

/// Values that another program made from the article SharedFormat.
struct GoldenValues: Decodable {
    struct Case: Decodable, CustomTestStringConvertible {
        var name: String, tenant: String, page: Data, redisName: String, encrypts: Bool, nonce: Data, block: Data
        var value: Data, firstPosition: UInt32, tokens: UInt32, rawBytes: UInt64, ttl: UInt32, mode: UInt8
        var marks: UInt8, priority: UInt8, distortion: Float, exactRows: UInt32

        var testDescription: String { name }

        var head: PageHead {
            PageHead(
                attributes: PageAttributes(
                    priority: priority, ttl: ttl, firstPosition: firstPosition, tokens: tokens, rawBytes: rawBytes,
                    coded: true, near: marks & 2 != 0, nonFinite: marks & 4 != 0, lossy: marks & 1 != 0),
                length: block.count, mode: mode, distortion: distortion, exactRows: exactRows)
        }

        /// What the page is called under the golden secret.
        var pageName: PageName {
            let names = FleetNames(prefix: "kvtc", secret: GoldenValues.secret) { [tenant] _ in tenant }
            return names.pages([StoreKey(tenant: 1, page: page)!])[0]
        }
    }
    /// Part 3 of the profile, and its entry: llama.kvtc.safetensors, 5000 bytes, in parts of 1 MiB.
    struct ProfileCase: Decodable {
        var encrypts: Bool, id: Data, nonce: Data, index: String, field: String, entry: Data, chunkName: String
        var content: Data, chunk: Data
    }
    var secret: Data
    var cases: [Case]
    var profiles: [ProfileCase]

    static let all = try! JSONDecoder().decode(
        GoldenValues.self, from: Data(contentsOf: URL(fileURLWithPath: testFile("Golden/shared-1.json"))))
    static let secret = try! FleetSecret([UInt8](all.secret))
}

@Suite struct SharedValueTests {
    @Test(arguments: GoldenValues.all.cases) func valuesAreThoseOfTheFormat(golden: GoldenValues.Case) throws {
        let name = golden.pageName
        #expect(String(decoding: name.name, as: UTF8.self) == golden.redisName)
        let value = golden.block.withUnsafeBytes {
            SharedValue.seal($0, golden.head, key: name.key, encrypts: golden.encrypts, nonce: [UInt8](golden.nonce))
        }
        #expect(value == [UInt8](golden.value))
        let (head, block) = try SharedValue.open([UInt8](golden.value), key: name.key)
        #expect(head == golden.head)
        #expect(block == [UInt8](golden.block))
        #expect(try SharedValue.head(of: Array(golden.value.prefix(SharedValue.headBytes)), key: name.key) == head)
    }

    /// Every bit of a value, and every length, is bound.
    @Test(arguments: [false, true]) func nothingElseVerifies(encrypts: Bool) throws {
        let key = Seal.randomBytes(32)
        let block = Seal.randomBytes(67)
        let head = PageHead(
            attributes: PageAttributes(tokens: 3, coded: true), length: 67, mode: 2, distortion: 0.1, exactRows: 1)
        let value = block.withUnsafeBytes { SharedValue.seal($0, head, key: key, encrypts: encrypts) }
        #expect(try SharedValue.open(value, key: key).block == block)
        #expect(!encrypts || value.firstRange(of: block.prefix(16)) == nil)
        for bit in 0..<value.count * 8 {
            var damaged = value
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            // A flipped bit of the version is not to be told from a later release.
            let expected: SharedValue.Fault = (32..<48).contains(bit) && bit != 32 ? .newer : .corrupt
            #expect(throws: expected, "bit \(bit)") { try SharedValue.open(damaged, key: key) }
            #expect((try? SharedValue.head(of: damaged, key: key)) == (bit < 640 ? nil : head), "bit \(bit)")
        }
        for count in 0..<value.count {
            #expect(throws: SharedValue.Fault.truncated) { try SharedValue.open(Array(value.prefix(count)), key: key) }
        }
        #expect(throws: SharedValue.Fault.truncated) { try SharedValue.open(value + [0], key: key) }
        #expect(throws: SharedValue.Fault.corrupt) { try SharedValue.open(value, key: Seal.randomBytes(32)) }
    }

    /// Two values of one page: neither head fits the other's body.
    @Test(arguments: [false, true]) func partsOfTwoValuesAreNone(encrypts: Bool) throws {
        let key = Seal.randomBytes(32)
        let head = PageHead(attributes: PageAttributes(coded: true), length: 40, mode: 2, distortion: 0, exactRows: 0)
        let values = (0..<2).map { _ in
            Seal.randomBytes(40).withUnsafeBytes { SharedValue.seal($0, head, key: key, encrypts: encrypts) }
        }
        let mixed = values[0].prefix(SharedValue.headBytes) + values[1].dropFirst(SharedValue.headBytes)
        #expect(throws: SharedValue.Fault.corrupt) { try SharedValue.open(Array(mixed), key: key) }
    }

    @Test func anythingIsSealedAndOpened() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let key = (0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) }
            let block = (0..<Int.random(in: 1...3000, using: &generator)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            let head = PageHead(
                attributes: PageAttributes(
                    priority: .random(in: 0...255, using: &generator), ttl: .random(in: 0 ... .max, using: &generator),
                    firstPosition: .random(in: 0 ... .max, using: &generator),
                    tokens: .random(in: 0 ... .max, using: &generator),
                    rawBytes: .random(in: 0 ... .max, using: &generator), coded: true,
                    near: .random(using: &generator), nonFinite: .random(using: &generator),
                    lossy: .random(using: &generator)),
                length: block.count, mode: .random(in: 0...255, using: &generator),
                distortion: generator.normal(), exactRows: .random(in: 0 ... .max, using: &generator))
            let encrypts = Bool.random(using: &generator)
            let value = block.withUnsafeBytes { SharedValue.seal($0, head, key: key, encrypts: encrypts) }
            let opened = try SharedValue.open(value, key: key)
            #expect(opened.head == head && opened.block == block, "seed \(seed)")
        }
    }

    @Test func aPageGivesWayToABetterOne() {
        func head(
            lossy: Bool = true, near: Bool = false, nonFinite: Bool = false, distortion: Float = 0.1, rows: UInt32 = 4,
            ttl: UInt32 = 0
        ) -> PageHead {
            PageHead(
                attributes: PageAttributes(ttl: ttl, coded: true, near: near, nonFinite: nonFinite, lossy: lossy),
                length: 1, mode: 2, distortion: distortion, exactRows: rows)
        }
        #expect(head().serves(insteadOf: head()))
        #expect(head().serves(insteadOf: head(distortion: 0.2, rows: 3)))
        #expect(!head().serves(insteadOf: head(distortion: 0.05)))
        #expect(!head().serves(insteadOf: head(rows: 5)))
        #expect(!head(distortion: .nan).serves(insteadOf: head()))
        #expect(!head().serves(insteadOf: head(lossy: false, distortion: 0, rows: 0)))
        #expect(head(lossy: false, distortion: 0, rows: 0).serves(insteadOf: head(rows: 9)))
        #expect(!head(near: true).serves(insteadOf: head()))
        #expect(!head(nonFinite: true).serves(insteadOf: head()))
        #expect(!head(ttl: 60).serves(insteadOf: head()))
        #expect(!head(ttl: 60).serves(insteadOf: head(ttl: 61)))
        #expect(head(ttl: 60).serves(insteadOf: head(ttl: 60)))
        #expect(head().serves(insteadOf: head(ttl: 60)))
    }
}
