import Foundation
import KVTCShared
import KVTCSystem
import TestSupport

/// A real Redis with nothing on disk but what a test gives it, in a directory of its own.
final class RedisServer {
    /// The program of Debian's redis-tools: a server under another name, by which it knows what to be. The package redis-server would also
    /// start one for the whole machine.
    private static let program = "/usr/bin/redis-check-rdb"

    enum Failure: Error { case notInstalled, ended(String) }

    let directory: TemporaryDirectory
    /// Zero on a Unix socket only.
    let port: UInt16
    private let process = Process()

    /// Starts one, and waits until it serves.
    /// - Parameters:
    ///   - arguments: What it is told, given its directory.
    ///   - onPort: Whether it is to be on a free port of the loopback device, under the name that the option has ("--port"); its own socket
    ///     is there in any case.
    init(_ arguments: [String] = [], onPort option: String? = nil, in directory: TemporaryDirectory? = nil) throws {
        guard access(RedisServer.program, X_OK) == 0 else { throw Failure.notInstalled }
        let directory = try directory ?? TemporaryDirectory()
        self.directory = directory
        let executable = directory.file("redis-server")
        if access(executable, X_OK) != 0 {
            try FileManager.default.createSymbolicLink(atPath: executable, withDestinationPath: RedisServer.program)
        }
        var port: UInt16 = 0
        if option != nil { port = try RedisServer.freePort() }
        self.port = port
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments =
            (option == nil ? ["--port", "0"] : [option!, "\(port)"] + (option == "--port" ? [] : ["--port", "0"]))
            + ["--bind", "127.0.0.1", "--unixsocket", directory.file("s"), "--dir", directory.path, "--save", ""]
            + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        var log = ""
        while !log.contains("eady to accept connections") {
            let data = output.fileHandleForReading.availableData
            guard !data.isEmpty else { throw Failure.ended(log) }
            log += String(decoding: data, as: UTF8.self)
        }
        // It must not wait for a reader.
        output.fileHandleForReading.readabilityHandler = { _ = $0.availableData }
    }

    deinit { kill() }

    /// Ends it as a power cut would.
    func kill() {
        guard process.isRunning else { return }
        Glibc.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Stops it in its tracks, and has it go on.
    func freeze() { Glibc.kill(process.processIdentifier, SIGSTOP) }
    func thaw() { Glibc.kill(process.processIdentifier, SIGCONT) }

    /// A URL of its socket.
    var url: RedisURL { get throws { try RedisURL("unix://" + directory.file("s")) } }

    var settings: RedisSettings { get throws { RedisSettings(url: try url) } }

    /// A port that nothing listens on now.
    static func freePort() throws -> UInt16 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        guard isBound else { throw SystemError("bind", code: errno) }
        return UInt16(bigEndian: address.sin_port)
    }
}
