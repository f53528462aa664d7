import Foundation
import KVTCClient
import KVTCSystem

/// A directory that goes away with its owner. Short, because socket paths are.
final class TemporaryDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/kvtc-bench.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemError("mkdtemp", code: errno) }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }
}

/// A server that this benchmark starts and ends.
final class ChildProcess {
    private let process = Process()

    init(_ executable: String, _ arguments: [String]) throws {
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        try process.run()
    }

    deinit {
        process.terminate()
        process.waitUntilExit()
    }

    /// Tries until the server answers.
    func whenReady<Value>(_ attempt: () throws -> Value) throws -> Value {
        let deadline = MonotonicClock.nanoseconds + 20_000_000_000
        while true {
            do { return try attempt() } catch {
                guard process.isRunning, MonotonicClock.nanoseconds < deadline else { throw error }
                usleep(10_000)
            }
        }
    }
}

/// The daemon that was built beside this program.
final class DaemonProcess {
    let directory: TemporaryDirectory
    let socket: String
    private let process: ChildProcess

    /// - Parameter disk: bytes of the disk tier, 0 for none.
    init(ramBudget: Int, diskBudget: Int = 0) throws {
        directory = try TemporaryDirectory()
        socket = directory.file("s")
        let beside = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let executable = ProcessInfo.processInfo.environment["KVTCD"] ?? beside.appendingPathComponent("kvtcd").path
        process = try ChildProcess(
            executable,
            [
                "--socket", socket, "--directory", diskBudget > 0 ? directory.file("pages") : "",
                "--ram-budget", "\(ramBudget)", "--disk-budget", "\(diskBudget)", "--log-level", "critical",
            ])
        _ = try process.whenReady { try Client(socketPath: socket) }
    }

    func client() throws -> Client { try Client(socketPath: socket, name: "kvtc-bench") }
}
