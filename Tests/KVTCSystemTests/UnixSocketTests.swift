import Foundation
import Glibc
import KVTCSystem
import TestSupport
import Testing

@Suite struct UnixSocketTests {
    @Test func peersSeeEachOther() throws {
        let directory = try TemporaryDirectory()
        let listener = try UnixListener(path: directory.file("s"))
        let client = try UnixConnection.connect(to: directory.file("s"))
        let server = try #require(try listener.accept(wakeUp: WakeUp()))
        #expect(server.peer.uid == getuid())
        #expect(server.peer.pid == getpid())
        try client.write([1, 2, 3])
        #expect(try server.read(count: 3) == [1, 2, 3])
    }

    @Test func wakeUpEndsWaiting() throws {
        let directory = try TemporaryDirectory()
        let listener = try UnixListener(path: directory.file("s"))
        let wakeUp = try WakeUp()
        wakeUp.signal()
        #expect(try listener.accept(wakeUp: wakeUp) == nil)
        #expect(wakeUp.wait(milliseconds: nil))
        wakeUp.clear()
        #expect(!wakeUp.wait(milliseconds: 0))
    }

    @Test func leftoverSocketIsReplacedButALivingOneIsNot() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        do { _ = try UnixListener(path: path) }
        let listener = try UnixListener(path: path)
        let error = #expect(throws: SystemError.self) { _ = try UnixListener(path: path) }
        #expect(error?.code == EADDRINUSE)
        listener.removePath()
        #expect(access(path, F_OK) != 0)
    }

    @Test func plainFileIsNeverRemoved() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("precious")
        fclose(fopen(path, "w"))
        #expect(throws: SystemError.self) { _ = try UnixListener(path: path) }
        #expect(access(path, F_OK) == 0)
        #expect(throws: SystemError.self) {
            _ = try UnixListener(path: directory.file(String(repeating: "x", count: 120)))
        }
    }

    @Test func silenceTimesOut() throws {
        let (a, b) = try UnixConnection.pair()
        #expect(throws: ConnectionError.timeout) { _ = try a.read(count: 1, deadline: MonotonicClock.nanoseconds) }
        try b.write([7])
        #expect(throws: ConnectionError.timeout) {
            _ = try a.read(count: 2, deadline: MonotonicClock.nanoseconds + 20_000_000)
        }
    }

    @Test func theEndIsToldFromTruncation() throws {
        let (a, b) = try UnixConnection.pair()
        try b.write([1])
        b.shutdown()
        #expect(throws: ConnectionError.closed(partial: true)) { _ = try a.read(count: 2) }
        #expect(throws: ConnectionError.closed(partial: false)) { _ = try a.read(count: 2) }
        #expect(throws: ConnectionError.closed(partial: false)) { try a.write([1]) }
    }

    @Test func descriptorsTravelWithTheFirstByte() throws {
        let (a, b) = try UnixConnection.pair()
        let arena = try Arena(byteCount: 4096)
        _ = [42].withUnsafeBytes { arena.write($0, offset: 8) }
        try a.write([[9], [8, 7]], descriptor: arena.rawDescriptor)
        let (bytes, descriptor) = try b.readWithDescriptor(count: 3)
        #expect(bytes == [9, 8, 7])
        let same = try Arena(owning: FileDescriptor(owning: #require(descriptor)), byteCount: 4096)
        #expect(same.copy(offset: 8, length: 1) == [42])
    }

    // A reader that wants no descriptors must not collect them: the flood would use up its table.
    @Test func unwantedDescriptorsAreRefusedAndNotKept() throws {
        let marked = try Arena(byteCount: 4096, name: "flood")
        for _ in 0..<64 {
            let (a, b) = try UnixConnection.pair()
            try a.write([[1]], descriptor: marked.rawDescriptor)
            #expect(throws: ConnectionError.system(SystemError("recvmsg", code: EBADMSG))) { try b.read(count: 1) }
        }
        #expect(openArenas(named: "flood") == 1)
    }

    @Test func oneMessageOfManyPartsArrivesWhole() throws {
        let (a, b) = try UnixConnection.pair()
        // More than a socket's buffer, so that it is sent in pieces that end anywhere.
        let last = (0..<3 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let sending = try Thread.start {
            last.withUnsafeBytes { try? a.write([[1, 2, 3], [], [4]], then: $0) }
        }
        let deadline = MonotonicClock.nanoseconds + 60_000_000_000
        #expect(try b.read(count: 4, deadline: deadline) == [1, 2, 3, 4])
        #expect(try b.read(count: last.count, deadline: deadline) == last)
        sending.join()
    }

    @Test(arguments: [10, 1 << 20])
    func bytesThatDoNotComeTimeOut(count: Int) throws {
        let (a, b) = try UnixConnection.pair()
        try a.write([1, 2])
        let deadline = MonotonicClock.nanoseconds + 50_000_000
        #expect(throws: ConnectionError.timeout) { try b.read(count: count, deadline: deadline) }
        // A read without a deadline afterwards waits as long as it takes.
        let sending = try Thread.start { try? a.write([3]) }
        #expect(try b.read(count: 1) == [3])
        sending.join()
    }

    @Test func aPeerThatReadsSlowlyHasNoMoreTime() throws {
        let (a, b) = try UnixConnection.pair()
        a.limitWrites(seconds: 1)
        let isOver = Monitor(false)
        // Far too slow for the whole message in its time, and never silent for as long.
        let reading = try Thread.start {
            while isOver.wait(until: MonotonicClock.nanoseconds + 20_000_000, { $0 ? true : nil }) == nil {
                _ = try? b.read(count: 16 << 10, deadline: MonotonicClock.nanoseconds + 1_000_000_000)
            }
        }
        #expect(throws: ConnectionError.timeout) { try a.write([UInt8](repeating: 0, count: 64 << 20)) }
        isOver.update { $0 = true }
        reading.join()
    }

    @Test func inputIsWaitedFor() throws {
        let (a, b) = try UnixConnection.pair()
        let isEarly = try a.awaitInput(until: MonotonicClock.nanoseconds + 10_000_000)
        try b.write([1])
        let isThere = try a.awaitInput(until: MonotonicClock.nanoseconds + 60_000_000_000)
        #expect(!isEarly && isThere)
        #expect(try a.read(count: 1) == [1])
    }

    @Test func aPeerThatStopsReadingIsGivenUp() throws {
        let (a, b) = try UnixConnection.pair()
        a.limitWrites(seconds: 1)
        #expect(throws: ConnectionError.timeout) { try a.write([UInt8](repeating: 0, count: 8 << 20)) }
        withExtendedLifetime(b) {}
    }
}

/// How many descriptors of this process are memory files of the name.
func openArenas(named name: String) -> Int {
    var count = 0
    // All of them: tests beside this one may hold hundreds.
    let numbers = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    for number in numbers {
        var target = [CChar](repeating: 0, count: 256)
        let length = readlink("/proc/self/fd/\(number)", &target, 255)
        guard length > 0 else { continue }
        let text = String(decoding: target.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if text.contains("memfd:\(name)") { count += 1 }
    }
    return count
}
