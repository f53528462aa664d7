import CLinux
import Foundation
import KVTCStore
import Synchronization

/// Plays the service manager's descriptor store.
package final class TestKeeper: Sendable {
    private struct State {
        var files: [(name: String, file: Int32)] = []
        var forgotten: [String: String] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    /// Keeps memory files with the given contents, as another process would have left them.
    package init(_ contents: [(name: String, bytes: [UInt8])]) {
        for (name, bytes) in contents { adopt(name, Self.memoryFile(bytes)) }
    }

    deinit { for (_, file) in state.withLock({ $0.files }) { close(file) } }

    /// Keeps an open descriptor, which it owns from now on.
    package func adopt(_ name: String, _ file: Int32) { state.withLock { $0.files.append((name, file)) } }

    private static func memoryFile(_ bytes: [UInt8]) -> Int32 {
        let file = clinux_storage_memfd("test", bytes.count)
        precondition(file >= 0)
        bytes.withUnsafeBytes { precondition(pwrite(file, $0.baseAddress, $0.count, 0) == $0.count) }
        return file
    }

    /// What a store is opened with: every file so far, and this as the place for new ones.
    package var keeper: ArenaKeeper {
        ArenaKeeper(
            kept: state.withLock { $0.files.map { ($0.name, dup($0.file)) } },
            keep: { name, file in self.adopt(name, dup(file)) },
            forget: { name, reason in
                self.state.withLock { state in
                    state.forgotten[name] = reason
                    for (_, file) in state.files.filter({ $0.name == name }) { close(file) }
                    state.files.removeAll { $0.name == name }
                }
            })
    }

    package var names: [String] { state.withLock { $0.files.map(\.name) } }
    /// Files let go, with the reason.
    package var forgotten: [String: String] { state.withLock { $0.forgotten } }

    /// The memory as it is now.
    package var contents: [(name: String, bytes: [UInt8])] {
        state.withLock { state in
            state.files.map { name, file in
                var status = stat()
                fstat(file, &status)
                var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
                _ = bytes.withUnsafeMutableBytes { pread(file, $0.baseAddress, $0.count, 0) }
                return (name, bytes)
            }
        }
    }

    /// Flips a bit of the stretch of memory that holds the given bytes; false when there is none.
    package func flip(_ bytes: PageBytes, at offset: Int) -> Bool {
        for (index, (_, content)) in contents.enumerated() {
            guard let found = content.withUnsafeBytes({ Self.find(bytes.array, in: $0) }) else { continue }
            var changed = content[found + offset] ^ 4
            return state.withLock { pwrite($0.files[index].file, &changed, 1, off_t(found + offset)) == 1 }
        }
        return false
    }

    private static func find(_ needle: [UInt8], in bytes: UnsafeRawBufferPointer) -> Int? {
        stride(from: 0, through: bytes.count - needle.count, by: 512).first {
            bytes[$0..<$0 + needle.count].elementsEqual(needle)
        }
    }

    package func truncate(to bytes: Int) -> Bool { state.withLock { ftruncate($0.files[0].file, off_t(bytes)) == 0 } }
}

extension StoreConfiguration {
    package func kept(by keeper: TestKeeper) -> StoreConfiguration {
        var configuration = self
        configuration.keeper = keeper.keeper
        return configuration
    }
}
