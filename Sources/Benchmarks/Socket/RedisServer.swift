import CPeers
import Foundation
import KVTCSystem

/// A Redis that keeps nothing on disk, on a Unix socket, with a connection to it.
final class RedisServer {
    private static let program = "/usr/bin/redis-check-rdb"

    private let directory: TemporaryDirectory
    private let process: ChildProcess
    private let socket: Int32

    /// Nil where Redis is not installed.
    init?() throws {
        // The program of Debian's redis-tools: the same file under another name, by which it knows what to be. The package
        // redis-server would also start a server for the whole machine.
        guard access(Self.program, X_OK) == 0 else { return nil }
        let directory = try TemporaryDirectory()
        let executable = directory.file("redis-server")
        try FileManager.default.createSymbolicLink(atPath: executable, withDestinationPath: Self.program)
        let path = directory.file("s")
        process = try ChildProcess(
            executable,
            [
                "--port", "0", "--unixsocket", path, "--dir", directory.path, "--save", "", "--appendonly", "no",
                "--loglevel", "warning",
            ])
        socket = try process.whenReady { try check("connect to redis-server", peer_connect(path)) }
        self.directory = directory
    }

    deinit { close(socket) }

    func set(keys: [UInt8], values: UnsafeRawBufferPointer, length: Int) throws {
        let base = values.bindMemory(to: UInt8.self).baseAddress
        _ = try check("SET", peer_redis_set(socket, keys, keys.count / 32, base, length))
    }

    func get(keys: [UInt8], into values: UnsafeMutableRawBufferPointer, length: Int) throws {
        let base = values.bindMemory(to: UInt8.self).baseAddress
        _ = try check("GET", peer_redis_get(socket, keys, keys.count / 32, base, length))
    }

    func flush() throws { _ = try check("FLUSHALL", peer_redis_flush(socket)) }
}

/// A thread that sends what it is asked for through a socket pair.
final class RawTransfer {
    private let socket: Int32
    private let thread: KVTCSystem.Thread

    init(source: UnsafeRawBufferPointer) throws {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0 else {
            throw SystemError("socketpair", code: errno)
        }
        let (other, address, count) = (ends[1], UInt(bitPattern: source.baseAddress), source.count)
        socket = ends[0]
        thread = try KVTCSystem.Thread.start(name: "raw-transfer") {
            _ = peer_serve_transfers(other, UnsafePointer(bitPattern: address), count)
            close(other)
        }
    }

    deinit {
        close(socket)
        thread.join()
    }

    func receive(into target: UnsafeMutableRawBufferPointer) throws {
        let base = target.bindMemory(to: UInt8.self).baseAddress
        _ = try check("raw transfer", peer_transfer(socket, base, target.count))
    }
}

func check(_ call: String, _ result: Int32) throws -> Int32 {
    guard result >= 0 else { throw SystemError(call, code: -result) }
    return result
}
