import Glibc
import KVTCClient
import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSystem
import Testing

/// Profiles that are handed out as files in memory.
@Suite struct ProfileFileTests {
    let bench: BlockBench

    init() throws { bench = try BlockBench() }

    @Test func allGetTheOneFileAndNoneCanChangeIt() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        var files: [UInt64] = []
        for _ in 0..<2 {
            let client = try daemon.client()
            let file = try client.profileFile(session: bench.open(client).number)
            var status = stat()
            #expect(fstat(file.raw, &status) == 0 && status.st_size == bench.synthetic.file.count)
            files.append(UInt64(status.st_ino))
            var byte: UInt8 = 1
            #expect(pwrite(file.raw, &byte, 1, 0) == -1 && errno == EPERM)
            #expect(ftruncate(file.raw, 0) == -1 && errno == EPERM)
            #expect(ftruncate(file.raw, 1 << 30) == -1 && errno == EPERM)
            let again = open("/proc/self/fd/\(file.raw)", O_RDWR | O_CLOEXEC)
            #expect(again < 0 || pwrite(again, &byte, 1, 0) == -1)
            if again >= 0 { close(again) }
            #expect(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.raw, 0) == MAP_FAILED)
            var content = [UInt8](repeating: 0, count: bench.synthetic.file.count)
            #expect(pread(file.raw, &content, content.count, 0) == content.count)
            #expect(content == bench.synthetic.file)
        }
        #expect(files[0] == files[1])
    }

    @Test func itTakesASessionOfOnesOwnThatHasAProfile() throws {
        let daemon = try bench.daemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let without = try Pages.open(client, policy: Policy(mode: .lossless))
        #expect(refusal { _ = try client.profileFile(session: without.number) }?.code == .unknownProfile)
        let unknown = without.number &+ 1
        #expect(refusal { _ = try client.profileFile(session: unknown) }?.code == .unknownSession)
    }

    @Test func aConnectionGetsAsManyAsArenas() throws {
        let daemon = try bench.daemon { $0.limits.arenasPerConnection = 2 }
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try bench.open(client)
        _ = try client.makeArena(bytes: 4096)
        _ = try client.profileFile(session: session.number)
        #expect(refusal { _ = try client.profileFile(session: session.number) }?.code == .limitExceeded)
        #expect(refusal { _ = try client.makeArena(bytes: 4096) }?.code == .limitExceeded)
        let next = try daemon.client()
        _ = try next.profileFile(session: bench.open(next).number)
    }
}
