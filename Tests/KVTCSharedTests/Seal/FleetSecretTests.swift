import Foundation
import KVTCStore
import TestSupport
import Testing

@testable import KVTCShared

@Suite struct FleetSecretTests {
    private static func bytes(_ text: String) -> [UInt8] {
        stride(from: 0, to: text.count, by: 2).map { at in
            UInt8(text.dropFirst(at).prefix(2), radix: 16)!
        }
    }

    /// RFC 4231, cases 1, 2 and 4.
    @Test func hmacIsThatOfTheStandard() {
        let cases: [(key: [UInt8], data: [UInt8], digest: String)] = [
            (
                [UInt8](repeating: 0x0B, count: 20), Array("Hi There".utf8),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
            ),
            (
                Array("Jefe".utf8), Array("what do ya want for nothing?".utf8),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
            ),
            (
                Array(1...25), [UInt8](repeating: 0xCD, count: 50),
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
            ),
        ]
        for (key, data, digest) in cases {
            #expect(KeyedHash.digest(key: key, data) == Self.bytes(digest))
            var hash = KeyedHash(key: key)
            #expect(hash.digest(data) == Self.bytes(digest))
            #expect(hash.digest(Array(data.prefix(5)), Array(data.dropFirst(5))) == Self.bytes(digest))
        }
    }

    /// Case 14 of the GCM specification's AES-256 cases, and 16 with its 20 bound bytes.
    @Test func sealIsThatOfTheStandard() {
        var zeros = [UInt8](repeating: 0, count: 16)
        let tag = zeros.withUnsafeMutableBytes {
            Seal.seal(
                key: [UInt8](repeating: 0, count: 32), nonce: [UInt8](repeating: 0, count: 12), bound: [], hidden: $0)
        }
        #expect(zeros == Self.bytes("cea7403d4d606b6e074ec5d3baf39d18"))
        #expect(tag == Self.bytes("d0d1c8a799996bf0265b98b5d48ab919"))

        let key = Self.bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
        let nonce = Self.bytes("cafebabefacedbaddecaf888")
        let bound = Self.bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2")
        let plain = Self.bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
                + "b16aedf5aa0de657ba637b39")
        var hidden = plain
        bound.withUnsafeBytes { bound in
            let tag = hidden.withUnsafeMutableBytes { Seal.seal(key: key, nonce: nonce, bound: [bound], hidden: $0) }
            #expect(tag == Self.bytes("76fc6ece0f4e1768cddf8853bb2d551b"))
            let isOpen = hidden.withUnsafeMutableBytes {
                Seal.open(key: key, nonce: nonce, tag: tag, bound: [bound], hidden: $0)
            }
            #expect(isOpen)
            #expect(hidden == plain)
        }
    }

    /// `openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:0707… -kdfopt salt:kvtc-fleet-v1 -kdfopt info:"page name" HKDF`
    @Test func keysAreThoseOfHKDF() throws {
        let secret = try FleetSecret([UInt8](repeating: 7, count: 32))
        let key = Self.bytes("98f1d664fd2868064ef13295d48238fb4a4d04f2f9c4716bbb0495a0f2dda2b1")
        #expect(secret.key(.pageName) == key)
        #expect(Set(FleetSecret.Purpose.allCases.map(secret.key)).count == FleetSecret.Purpose.allCases.count)
    }

    @Test func namesAreOneOwnersAlone() throws {
        let one = try FleetSecret([UInt8](repeating: 7, count: 32))
        let other = try FleetSecret([UInt8](repeating: 8, count: 32))
        let pages = [[UInt8](repeating: 1, count: 32), [UInt8](repeating: 2, count: 32)]
        var seen: Set<[UInt8]> = []
        for secret in [one, other] {
            for tenant in ["a", "b", "", "ab"] {
                let names = FleetNames(prefix: "kvtc", secret: secret) { _ in tenant }
                for name in names.pages(pages.map { StoreKey(tenant: 1, page: $0)! }) {
                    seen.insert(name.name)
                    seen.insert(name.key)
                }
            }
        }
        #expect(seen.count == 2 * 4 * 2 * 2)
        // Users' numbers are a machine's own.
        let names = FleetNames(prefix: "kvtc", secret: one) { _ in "a" }
        let keys = [StoreKey(tenant: 1, page: pages[0])!, StoreKey(tenant: 2, page: pages[0])!]
        #expect(names.pages(keys)[0] == names.pages(keys)[1])
    }

    @Test func secretsAreLongEnough() throws {
        let line = Array((String(repeating: "x", count: 32) + "\n").utf8)
        #expect(try FleetSecret(line).key(.pageName) == FleetSecret(line.dropLast()).key(.pageName))
        #expect(throws: FleetSecretError.short(bytes: 31)) { try FleetSecret(Array(line.dropFirst())) }
        let directory = try TemporaryDirectory()
        #expect(throws: FleetSecretError.self) { try FleetSecret(file: directory.file("none")) }
        try Data(line).write(to: URL(fileURLWithPath: directory.file("secret")))
        #expect(try FleetSecret(file: directory.file("secret")).key(.pageValue) == FleetSecret(line).key(.pageValue))
        try Data(count: 70_000).write(to: URL(fileURLWithPath: directory.file("large")))
        #expect(throws: FleetSecretError.self) { try FleetSecret(file: directory.file("large")) }
    }
}
