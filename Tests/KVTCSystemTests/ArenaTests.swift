import CLinux
import Glibc
import KVTCSystem
import TestSupport
import Testing

@Suite struct ArenaTests {
    @Test func boundsAreCheckedWithoutOverflow() throws {
        let arena = try Arena(byteCount: 100)
        #expect(arena.contains(offset: 0, length: 100))
        #expect(arena.contains(offset: 100, length: 0))
        #expect(!arena.contains(offset: 1, length: 100))
        #expect(!arena.contains(offset: 101, length: 0))
        #expect(!arena.contains(offset: .max, length: 2))
        #expect(!arena.contains(offset: 2, length: .max))
        #expect(arena.copy(offset: .max, length: .max) == nil)
        #expect(arena.copy(offset: 50, length: 50)?.count == 50)
        #expect(arena.copy(offset: 50, length: 0) == [])
        #expect(arena.withWritable(offset: 99, length: 2) { _ in true } == nil)
    }

    @Test func itCannotShrinkOrGrow() throws {
        let arena = try Arena(byteCount: 8192)
        #expect(ftruncate(arena.rawDescriptor, 0) == -1)
        #expect(ftruncate(arena.rawDescriptor, 1 << 20) == -1)
        #expect(clinux_is_sealed_arena(arena.rawDescriptor) == 1)
    }

    @Test func memoryThatCouldShrinkIsRefused() throws {
        let directory = try TemporaryDirectory()
        let raw = open(directory.file("f"), O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        #expect(ftruncate(raw, 4096) == 0)
        #expect(throws: SystemError.self) {
            _ = try Arena(owning: FileDescriptor(owning: raw), byteCount: 4096)
        }
        let small = try Arena(byteCount: 4096)
        let copy = dup(small.rawDescriptor)
        #expect(throws: SystemError.self) {
            _ = try Arena(owning: FileDescriptor(owning: copy), byteCount: 1 << 20)
        }
    }

    @Test func ownersCloseWhatTheyOwn() throws {
        do {
            let arena = try Arena(byteCount: 4096, name: "owned")
            let copy = dup(arena.rawDescriptor)
            let owner = FileDescriptor(owning: copy)
            let twin = try owner.duplicate()
            #expect(twin.raw != owner.raw)
            #expect(openArenas(named: "owned") == 3)
        }
        #expect(openArenas(named: "owned") == 0)
    }

    // Whoever keeps the descriptor must not keep what was written through the arena.
    @Test func theEndTakesTheMemoryBack() throws {
        final class Charge: Sendable {
            let isOver: Monitor<Bool>
            init(_ isOver: Monitor<Bool>) { self.isOver = isOver }
            deinit { isOver.update { $0 = true } }
        }
        let isOver = Monitor(false)
        let kept: FileDescriptor
        var info = stat()
        do {
            let arena = try Arena(byteCount: 1 << 20, charge: Charge(isOver))
            kept = FileDescriptor(owning: dup(arena.rawDescriptor))
            arena.closeDescriptor()
            _ = [UInt8](repeating: 0xAB, count: 1 << 20).withUnsafeBytes { arena.write($0, offset: 0) }
            #expect(fstat(kept.raw, &info) == 0 && info.st_blocks > 0)
            #expect(!isOver.withLock { $0 })
        }
        #expect(isOver.withLock { $0 })
        #expect(fstat(kept.raw, &info) == 0 && info.st_blocks == 0 && info.st_size == 1 << 20)
        let twin = try Arena(owning: kept, byteCount: 1 << 20)
        #expect(twin.copy(offset: 0, length: 1 << 20)?.allSatisfy { $0 == 0 } == true)
    }

    @Test func impossibleSizesFail() {
        #expect(throws: SystemError.self) { _ = try Arena(byteCount: 0) }
        #expect(throws: SystemError.self) { _ = try Arena(byteCount: .max) }
    }
}

@Suite struct MonitorTests {
    @Test func aChangeWakesTheWaiter() throws {
        let monitor = Monitor(0)
        let thread = try Thread.start { monitor.update { $0 = 5 } }
        #expect(monitor.wait { $0 == 5 ? $0 : nil } == 5)
        thread.join()
    }

    @Test func anUpdateWaitsUntilTheStateIsReady() throws {
        let monitor = Monitor(0)
        let thread = try Thread.start {
            monitor.update { $0 = 5 }
            _ = monitor.wait { $0 == 6 ? true : nil }
        }
        monitor.update(when: { $0 == 5 }) { $0 += 1 }
        thread.join()
        #expect(monitor.withLock { $0 } == 6)
    }

    @Test func theDeadlineEndsWaiting() {
        let monitor = Monitor(0)
        #expect(monitor.wait(until: MonotonicClock.nanoseconds + 1_000_000) { $0 == 1 ? true : nil } == nil)
    }
}
