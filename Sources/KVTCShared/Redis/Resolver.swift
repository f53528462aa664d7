import Glibc
import KVTCSystem
import Synchronization

/// An address as the system wants it.
enum SocketAddress: Sendable, Hashable {
    /// A `sockaddr_in` or `sockaddr_in6`.
    case internet([UInt8], family: Int32)
    case unix(String)

    var family: Int32 {
        switch self {
        case .internet(_, let family): family
        case .unix: AF_UNIX
        }
    }
}

/// The addresses of a host. To learn them may take as long as a name server is silent, and waits in a thread of its own.
final class Resolution: Sendable {
    struct Failure: Error { var reason: String }

    private let known = Mutex<Result<[SocketAddress], Failure>?>(nil)

    /// Begins; `whenKnown` is called on that thread, where one is needed.
    init(_ address: RedisAddress, whenKnown: @escaping @Sendable () -> Void) {
        switch address {
        case .unix(let path): known.withLock { $0 = .success([.unix(path)]) }
        case .tcp(let host, let port):
            let numeric = Resolution.look(host, port, AI_NUMERICHOST)
            if case .success = numeric {
                known.withLock { $0 = numeric }
                return
            }
            do throws(SystemError) {
                try Thread.start(name: "kvtc-resolve", stackBytes: 256 << 10) { [self] in
                    let found = Resolution.look(host, port, AI_ADDRCONFIG)
                    known.withLock { $0 = found }
                    whenKnown()
                }.detach()
            } catch { known.withLock { $0 = .failure(Failure(reason: "\(error)")) } }
        }
    }

    /// The addresses, once they are known.
    var result: Result<[SocketAddress], Failure>? { known.withLock { $0 } }

    private static func look(_ host: String, _ port: UInt16, _ flags: Int32) -> Result<[SocketAddress], Failure> {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = flags | AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, String(port), &hints, &list)
        guard code == 0 else { return .failure(Failure(reason: "\(host): \(String(cString: gai_strerror(code)))")) }
        defer { freeaddrinfo(list) }
        var found: [SocketAddress] = []
        var next = list
        while let one = next?.pointee {
            let bytes = UnsafeRawBufferPointer(start: one.ai_addr, count: Int(one.ai_addrlen))
            found.append(.internet(Array(bytes), family: one.ai_family))
            next = one.ai_next
        }
        return .success(found)
    }
}
