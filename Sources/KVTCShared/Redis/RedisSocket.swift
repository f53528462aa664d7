import CLinux
import Glibc
import KVTCSystem

/// What came of trying to move bytes without waiting.
enum SocketOutcome {
    case bytes(Int)
    /// Nothing can be moved until poll says so.
    case later
    /// The connection is at its end, with what the system or TLS says of it.
    case ended(RedisFault, String)
}

/// A socket that never waits, with TLS over it or not. One thread uses it.
final class RedisSocket {
    private let descriptor: FileDescriptor
    private var tls: TLSSession?

    /// Begins to connect; whether that came to an end is for ``connected()`` to say once poll finds it writable.
    init(to address: SocketAddress) throws(SystemError) {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let raw = socket(address.family, kind, 0)
        guard raw >= 0 else { throw SystemError("socket", code: errno) }
        descriptor = FileDescriptor(owning: raw)
        var result: Int32 = 0
        switch address {
        case .unix(let path): result = -clinux_unix_connect(raw, path, 0)
        case .internet(let bytes, _):
            var one: Int32 = 1
            setsockopt(raw, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
            // So that a connection that is long idle is not found gone by the next command.
            setsockopt(raw, SOL_SOCKET, SO_KEEPALIVE, &one, socklen_t(MemoryLayout<Int32>.size))
            result = bytes.withUnsafeBytes {
                connect(raw, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t($0.count)) == 0
                    ? 0 : errno
            }
        }
        guard result == 0 || result == EINPROGRESS || result == EINTR else {
            throw SystemError("connect", code: result)
        }
    }

    /// For poll.
    var raw: Int32 { descriptor.raw }

    /// Whether connecting succeeded.
    func connected() throws(SystemError) {
        var code: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor.raw, SOL_SOCKET, SO_ERROR, &code, &size)
        guard code == 0 else { throw SystemError("connect", code: code) }
    }

    /// Has all that follows go through TLS.
    func secure(_ files: TLSFiles, host: String) throws(TLSFailure) {
        tls = try TLSSession(descriptor.raw, files, host: host)
    }

    /// Goes on with the handshake: the event to wait for, or nil when it is done.
    func shakeHands() throws(TLSFailure) -> Int32? { try tls?.shakeHands() }

    func send(_ bytes: UnsafeRawBufferPointer) -> SocketOutcome {
        if let tls { return tls.send(bytes) }
        while true {
            let sent = Glibc.send(descriptor.raw, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if sent >= 0 { return .bytes(sent) }
            if errno == EAGAIN { return .later }
            if errno != EINTR { return .ended(.unreachable, String(cString: strerror(errno))) }
        }
    }

    func receive(_ bytes: UnsafeMutableRawBufferPointer) -> SocketOutcome {
        if let tls { return tls.receive(bytes) }
        while true {
            let received = recv(descriptor.raw, bytes.baseAddress, bytes.count, 0)
            if received > 0 { return .bytes(received) }
            if received == 0 { return .ended(.unreachable, "the server closed the connection") }
            if errno == EAGAIN { return .later }
            if errno != EINTR { return .ended(.unreachable, String(cString: strerror(errno))) }
        }
    }
}
