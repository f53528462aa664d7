import KVTCShared
import KVTCSystem
import Synchronization
import TestSupport

/// A server that says what a test wants it to, on a Unix socket.
final class ScriptedServer: Sendable {
    private let directory: TemporaryDirectory
    private let listener: UnixListener
    private let wakeUp: WakeUp
    private let connections = Monitor<[UnixConnection]>([])
    private let thread = Mutex<Thread?>(nil)

    /// Answers each connection, on a thread of its own, by the script: it is given the connection and its number.
    init(_ script: @escaping @Sendable (UnixConnection, Int) throws -> Void) throws {
        directory = try TemporaryDirectory()
        listener = try UnixListener(path: directory.file("s"))
        wakeUp = try WakeUp()
        let started = try Thread.start { [listener, wakeUp, connections] in
            var threads: [Thread] = []
            while let connection = try? listener.accept(wakeUp: wakeUp) {
                let number = threads.count
                connections.update { $0.append(connection) }
                threads.append(
                    try! Thread.start {
                        try? script(connection, number)
                        connection.shutdown()
                    })
            }
            for connection in connections.withLock({ $0 }) { connection.shutdown() }
            for thread in threads { thread.join() }
        }
        thread.withLock { $0 = started }
    }

    deinit {
        wakeUp.signal()
        thread.withLock { $0?.join() }
    }

    /// Waits until so many have connected.
    func awaitConnections(_ count: Int) { _ = connections.wait { $0.count >= count ? true : nil } }

    func settings(largestValue: Int = 1 << 20) throws -> RedisSettings {
        var settings = RedisSettings(url: try RedisURL("unix://" + directory.file("s")))
        settings.largestValue = largestValue
        settings.connectMilliseconds = 200
        return settings
    }
}

extension UnixConnection {
    func write(_ text: String) throws { try write(Array(text.utf8)) }

    /// Reads a command: its words.
    func command() throws -> [String] {
        func line() throws -> String {
            var bytes: [UInt8] = []
            while bytes.suffix(2) != [13, 10] { bytes += try read(count: 1) }
            return String(decoding: bytes.dropLast(2), as: UTF8.self)
        }
        return try (0..<Int(line().dropFirst())!).map { _ in
            let count = Int(try line().dropFirst())!
            return String(decoding: try read(count: count + 2).dropLast(2), as: UTF8.self)
        }
    }

    /// Answers the PING that a connection begins with.
    func greet() throws {
        let first = try command()
        precondition(first == ["PING"], "a connection begins with \(first)")
        try write("+PONG\r\n")
    }

    /// Waits until the other end is gone.
    func awaitEnd() { while (try? read(count: 1)) != nil {} }
}
