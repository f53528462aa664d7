import Foundation
import KVTCCodec
import Logging
import SyntheticProfile
import TestSupport
import Testing

@testable import KVTCDaemon

/// Which profiles are there after the directory is read again.
@Suite struct ProfileRegistryTests {
    private let directory: TemporaryDirectory
    private let registry: ProfileRegistry
    private let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    init() throws {
        directory = try TemporaryDirectory()
        registry = ProfileRegistry(directory: directory.path + "/profiles") { (path) throws(CodecError) in
            try Profile.open(path: path)
        }
        try FileManager.default.createDirectory(atPath: directory.path + "/profiles", withIntermediateDirectories: true)
    }

    /// A profile, and the same without its checksum, which makes it another one.
    private func contents() throws -> (Data, Data) {
        let first = Data(try SyntheticPages.shared.get().file)
        var second = first
        let name = try #require(second.range(of: Data("\"sha256\"".utf8)))
        second.replaceSubrange(name, with: Data("\"sha257\"".utf8))
        return (first, second)
    }

    private func put(_ content: Data?, _ name: String) throws {
        let path = directory.path + "/profiles/" + name
        if let content {
            try content.write(to: URL(fileURLWithPath: path))
        } else {
            try FileManager.default.removeItem(atPath: path)
        }
        registry.scan(log: log)
    }

    private var named: [String: ProfileID] {
        Dictionary(uniqueKeysWithValues: registry.all.map { ($0.file ?? "", $0.profile.id) })
    }

    @Test func whatIsNoGoodLeavesTheOneBefore() throws {
        let (first, second) = try contents()
        try put(first, "a.safetensors")
        let id = try #require(named["a.safetensors"])
        try put(first.prefix(5000), "a.safetensors")
        try put(Data("no profile".utf8), "b.safetensors")
        try put(second, "notes.txt")
        #expect(named == ["a.safetensors": id])
        // A directory that is away for a while takes nothing along.
        try FileManager.default.moveItem(atPath: directory.path + "/profiles", toPath: directory.path + "/away")
        registry.scan(log: log)
        #expect(named == ["a.safetensors": id])
    }

    @Test func whatIsGoneOrReplacedStaysForThoseWhoHaveIt() throws {
        let (first, second) = try contents()
        try put(first, "a.safetensors")
        try put(second, "b.safetensors")
        let ids = (try #require(named["a.safetensors"]), try #require(named["b.safetensors"]))
        #expect(ids.0 != ids.1)
        var held = registry.find(ids.1.bytes)
        try put(nil, "b.safetensors")
        #expect(named == ["a.safetensors": ids.0])
        #expect(registry.find(ids.1.bytes) === held && registry.former.map(\.profile.id) == [ids.1])
        held = nil
        #expect(registry.find(ids.1.bytes) == nil && registry.former.isEmpty)
        held = registry.find(ids.0.bytes)
        try put(second, "a.safetensors")
        #expect(named == ["a.safetensors": ids.1] && registry.find(ids.0.bytes) === held)
        // Its name back, it is the same one and not another copy.
        try put(first, "c.safetensors")
        #expect(registry.find(ids.0.bytes) === held && registry.former.isEmpty)
    }

    @Test func oneContentUnderTwoNamesIsOneCopy() throws {
        let (first, _) = try contents()
        try put(first, "a.safetensors")
        try put(first, "b.safetensors")
        #expect(registry.all.count == 2 && registry.all[0].profile === registry.all[1].profile)
        try put(nil, "a.safetensors")
        #expect(registry.former.isEmpty && registry.all.count == 1)
    }
}
