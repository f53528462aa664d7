import Foundation
import KVTCCodec
import KVTCSystem
import TestSupport
import Testing

@testable import KVTCShared

@Suite struct ProfileExchangeTests {
    /// The profile of a golden file.
    private static func profile(_ number: Int) -> Profile {
        struct Golden: Decodable { var profile: Data }
        let file = try! Data(contentsOf: URL(fileURLWithPath: testFile("Golden/blocks-\(number).json")))
        return try! Profile(bytes: [UInt8](try! JSONDecoder().decode(Golden.self, from: file).profile))
    }

    private static let first = profile(3), second = profile(4)

    /// The profiles of a machine.
    private final class Shelf: Sendable {
        let profiles: Monitor<[String: Profile]>

        init(_ profiles: [String: Profile]) { self.profiles = Monitor(profiles) }

        func connect(_ machine: Machine) throws {
            try machine.tier.exchangeProfiles {
                self.profiles.withLock { $0.sorted { $0.key < $1.key }.map { (name: $0.key, profile: $0.value) } }
            } take: { name, profile in
                self.profiles.update { precondition($0.updateValue(profile, forKey: name) == nil) }
            }
        }

        var ids: [String: ProfileID] { profiles.withLock { $0.mapValues(\.id) } }
    }

    private func machine(
        _ servers: any FleetServers, _ shelf: Shelf, _ change: (inout FleetSettings) -> Void = { _ in }
    ) throws -> Machine {
        let machine = try Machine(servers) {
            $0.profileChunkBytes = 1 << 10
            change(&$0)
        }
        try shelf.connect(machine)
        return machine
    }

    private func round(_ machine: Machine) { machine.tier.profiles.withLock { $0 }!.wait(rounds: 1) }

    /// The same with played servers, which end with the first machine that does.
    private func round(
        _ servers: PlayedServers, _ shelf: Shelf, _ change: (inout FleetSettings) -> Void = { _ in }
    ) throws -> Machine {
        let machine = try machine(servers, shelf, change)
        round(machine)
        return machine
    }

    @Test(arguments: [false, true]) func aNewMachineNeedsNoCopy(encrypts: Bool) throws {
        let server = try RedisServer()
        let one = Shelf(["a.kvtc.safetensors": Self.first, "b.kvtc.safetensors": Self.second])
        round(try machine(RedisClient(try server.settings), one) { $0.encrypts = encrypts })
        let other = Shelf(["b.kvtc.safetensors": Self.first])
        let there = try machine(RedisClient(try server.settings), other)
        round(there)
        // The name that is taken by another profile gets the first digits of the id.
        let name = "b-\("\(Self.second.id)".prefix(8)).kvtc.safetensors"
        #expect(other.ids == ["b.kvtc.safetensors": Self.first.id, name: Self.second.id])
        #expect(other.profiles.withLock { $0[name]!.file.bytes.elementsEqual(Self.second.file.bytes) })
        #expect(there.tier.statistics.profilesTaken == 1)
        #expect(there.events.withLock { $0.contains { $0.contains("profile taken from the fleet: \(name)") } })
        // All that is there is there already.
        #expect(there.tier.statistics.profilePartsWritten == 0)
        // Another fleet sees nothing.
        let stranger = Shelf([:])
        round(
            try machine(RedisClient(try server.settings), stranger) {
                $0.secret = try! FleetSecret(Seal.randomBytes(32))
            })
        #expect(stranger.ids.isEmpty)
    }

    @Test func whatIsMissingOrDamagedIsWrittenAgain() throws {
        let servers = PlayedServers()
        let one = Shelf(["a.kvtc.safetensors": Self.first])
        let here = try round(servers, one)
        let parts = here.tier.statistics.profilePartsWritten
        #expect(parts == UInt64((Self.first.byteCount + 1023) / 1024))
        let names = ProfileNames(here.tier.settings)
        servers.state.update { $0.values[names.chunk(Self.first.id, 1).name]![40] ^= 1 }
        let other = Shelf([:])
        let there = try round(servers, other)
        #expect(other.ids.isEmpty)
        _ = servers.state.wait { $0.values.count == Int(parts) - 1 ? true : nil }
        servers.state.update { $0.values[names.chunk(Self.first.id, 3).name] = nil }
        let again = try round(servers, one)
        #expect(servers.state.withLock { $0.values.count } == Int(parts))
        let last = try round(servers, other)
        #expect(other.ids == one.ids)
        withExtendedLifetime([here, there, again, last]) {}
    }

    @Test func whoDoesNotWriteTakesOnly() throws {
        let servers = PlayedServers()
        let writer = try round(servers, Shelf(["a.kvtc.safetensors": Self.first]))
        let reader = Shelf(["c.kvtc.safetensors": Self.second])
        let machine = try round(servers, reader) { $0.writes = false }
        #expect(reader.ids.count == 2)
        #expect(machine.tier.statistics.profilePartsWritten == 0)
        withExtendedLifetime(writer) {}
    }

    @Test func aProfileThatIsNotWhatItIsCalledIsLeftOut() throws {
        let servers = PlayedServers()
        let here = try round(servers, Shelf([:]))
        // A machine of the fleet that is wrong: the parts of one profile under the id of another.
        let settings = here.tier.settings
        let names = ProfileNames(settings)
        let bytes = Self.first.file.bytes
        let entry = ProfileEntry(
            id: Self.second.id, name: "x.safetensors", bytes: bytes.count, chunkBytes: 1 << 10)
        let field = names.field(entry.id)
        let value = entry.encoded.withUnsafeBytes {
            SealedBytes.seal($0, key: names.entryKey(field: field), encrypts: false)
        }
        servers.state.update { state in
            state.hashes[names.index] = [field: value, Array("no name".utf8): [1, 2, 3]]
            for number in 0..<entry.chunks {
                let chunk = names.chunk(entry.id, number)
                let part = UnsafeRawBufferPointer(rebasing: bytes[entry.range(number)])
                state.values[chunk.name] = SealedBytes.seal(part, key: chunk.key, encrypts: false)
            }
        }
        let other = Shelf([:])
        let there = try round(servers, other)
        #expect(other.ids.isEmpty)
        withExtendedLifetime(here) {}
        #expect(there.events.withLock { $0.contains { $0.contains("SHA-256") } })
    }

    @Test func faultsEndARoundAndClosingEndsAll() throws {
        for (name, reaction) in [
            ("HGETALL", PlayedServers.Reaction.fail(.open)), ("TOUCH", .fail(.timeout)), ("SET", .fail(.full)),
            ("GET", .damage), ("HSET", .fail(.busy)),
        ] {
            let servers = PlayedServers()
            let writer = try round(servers, Shelf(["b.kvtc.safetensors": Self.second]))
            servers.react { command, _ in command == name ? reaction : .answer }
            let shelf = Shelf(["a.kvtc.safetensors": Self.first])
            let machine = try round(servers, shelf)
            #expect((shelf.ids.count == 2) == !["HGETALL", "GET"].contains(name), "\(name)")
            withExtendedLifetime([writer, machine]) {}
        }
        let servers = PlayedServers()
        servers.react { _, _ in .hold }
        let machine = try machine(servers, Shelf(["a.kvtc.safetensors": Self.first]))
        servers.expect("HGETALL", 1)
        machine.tier.close()
    }

    @Test(arguments: [0, 1]) func profilesAreThoseOfTheFormat(number: Int) throws {
        let golden = GoldenValues.all.profiles[number]
        let settings = FleetSettings(
            redis: RedisSettings(url: try RedisURL("redis://localhost")), secret: GoldenValues.secret)
        let names = ProfileNames(settings)
        let id = ProfileID(bytes: [UInt8](golden.id))!
        #expect(names.index == Array(golden.index.utf8))
        #expect(names.field(id) == Array(golden.field.utf8))
        let chunk = names.chunk(id, 3)
        #expect(chunk.name == Array(golden.chunkName.utf8))
        let entry = ProfileEntry(id: id, name: "llama.kvtc.safetensors", bytes: 5000, chunkBytes: 1 << 20)
        #expect(ProfileEntry(entry.encoded) == entry)
        let nonce = [UInt8](golden.nonce)
        func seal(_ bytes: [UInt8], _ key: [UInt8]) -> [UInt8] {
            bytes.withUnsafeBytes { SealedBytes.seal($0, key: key, encrypts: golden.encrypts, nonce: nonce) }
        }
        #expect(seal(entry.encoded, names.entryKey(field: names.field(id))) == [UInt8](golden.entry))
        #expect(seal([UInt8](golden.content), chunk.key) == [UInt8](golden.chunk))
        // Every bit and every length counts.
        for bit in 0..<golden.chunk.count * 8 {
            var damaged = [UInt8](golden.chunk)
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            var content = [UInt8](golden.content)
            #expect(throws: SharedValue.Fault.self) {
                try content.withUnsafeMutableBytes { try SealedBytes.open(damaged, key: chunk.key, into: $0) }
            }
        }
        for count in 0..<golden.chunk.count {
            var content = [UInt8](golden.content)
            #expect(throws: SharedValue.Fault.truncated) {
                try content.withUnsafeMutableBytes {
                    try SealedBytes.open(Array(golden.chunk.prefix(count)), key: chunk.key, into: $0)
                }
            }
        }
    }

    @Test func entriesThatNoReleaseWritesAreNone() {
        let good = ProfileEntry(id: Self.first.id, name: "a", bytes: 10, chunkBytes: 1024).encoded
        #expect(ProfileEntry(good) != nil)
        for name in ["", "../a", "a/b", ".a", "a\0b", String(repeating: "a", count: 247)] {
            let entry = ProfileEntry(id: Self.first.id, name: name, bytes: 10, chunkBytes: 1024)
            #expect(ProfileEntry(entry.encoded) == nil, "\(name)")
        }
        for count in 0..<good.count { #expect(ProfileEntry(Array(good.prefix(count))) == nil) }
        for (range, value) in [(32..<40, UInt8(0xFF)), (32..<40, 0), (40..<44, 0xFF), (40..<44, 0), (44..<45, 0xFF)] {
            var bad = good
            for at in range { bad[at] = value }
            #expect(ProfileEntry(bad) == nil)
        }
    }
}
