import Foundation
import KVTCCodec
import TestSupport
import Testing

/// A profile file that lost or changed bits is refused, never taken for another profile.
@Suite struct ProfileDamageTests {
    private static let file = [UInt8](FileManager.default.contents(atPath: testFile("Fuzz/Corpus/profiles/sealed"))!)

    @Test(arguments: 0..<8) func everyFlippedBitIsNoticed(bit: Int) throws {
        let file = ProfileDamageTests.file
        _ = try Profile(bytes: file)
        // A flip in the name of the checksum only hides the checksum; all else is as it was.
        let name = Array("\"sha256\"".utf8)
        let at = try #require((0..<file.count - name.count).first { file[$0..<$0 + name.count].elementsEqual(name) })
        for offset in 0..<file.count where !(at..<at + name.count).contains(offset) {
            var damaged = file
            damaged[offset] ^= 1 << UInt8(bit)
            #expect(throws: CodecError.self, "bit \(bit) of byte \(offset)") { try Profile(bytes: damaged) }
        }
    }

    @Test func everyTruncationIsNoticed() throws {
        let file = ProfileDamageTests.file
        for length in 0..<file.count {
            #expect(throws: CodecError.self, "cut to \(length)") { try Profile(bytes: Array(file[..<length])) }
        }
        #expect(throws: CodecError.self) { try Profile(bytes: file + [0]) }
    }
}
