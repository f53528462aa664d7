import Glibc
import KVTCSystem

/// Makes a connection, step by step and never waiting: name, address after address, TLS.
final class Dialler {
    enum Progress {
        /// Nothing to do until the descriptor is ready; -1 while the name is looked up.
        case waiting(Int32, events: Int32)
        case connected(RedisSocket)
        case failed(RedisFault, String)
    }

    /// When it gives up.
    let limit: UInt64
    private let address: RedisAddress
    private let settings: RedisSettings
    private let resolution: Resolution
    private var candidates: [SocketAddress]?
    private var socket: RedisSocket?
    private var socketLimit: UInt64 = 0
    private var isSecuring = false
    private var reason = "no address"

    init(_ address: RedisAddress, _ settings: RedisSettings, now: UInt64, wake: @escaping @Sendable () -> Void) {
        (self.address, self.settings) = (address, settings)
        limit = now + UInt64(settings.connectMilliseconds) * 1_000_000
        resolution = Resolution(address, whenKnown: wake)
    }

    /// When it wants to be asked again, whatever poll says.
    var nextLimit: UInt64 { socket == nil ? limit : min(limit, socketLimit) }

    func step(now: UInt64, isReady: Bool) -> Progress {
        if now >= limit {
            let what = isSecuring ? "TLS handshake" : candidates == nil ? "address of its name" : "connection"
            return .failed(isSecuring ? .tls : .unreachable, "no \(what) within \(settings.connectMilliseconds) ms")
        }
        if candidates == nil {
            switch resolution.result {
            case nil: return .waiting(-1, events: 0)
            case .failure(let failure): return .failed(.unreachable, failure.reason)
            case .success(let found): candidates = found
            }
        }
        while true {
            if isSecuring { return shakeHands() }
            if let socket {
                if now >= socketLimit {
                    reason = "no connection within \(settings.connectMilliseconds) ms"
                    self.socket = nil
                    continue
                }
                guard isReady else { return .waiting(socket.raw, events: POLLOUT) }
                do throws(SystemError) {
                    try socket.connected()
                } catch {
                    reason = "\(error)"
                    self.socket = nil
                    continue
                }
                guard settings.url.isTLS, case .tcp(let host, _) = address else { return .connected(socket) }
                do throws(TLSFailure) { try socket.secure(settings.tls, host: host) } catch {
                    return .failed(.tls, error.reason)
                }
                isSecuring = true
                continue
            }
            guard let next = candidates?.first else { return .failed(.unreachable, reason) }
            // The first of several may be one that swallows packets.
            socketLimit = now + (limit - now) / UInt64(candidates!.count)
            candidates!.removeFirst()
            do throws(SystemError) {
                socket = try RedisSocket(to: next)
                return .waiting(socket!.raw, events: POLLOUT)
            } catch { reason = "\(error)" }
        }
    }

    private func shakeHands() -> Progress {
        do throws(TLSFailure) {
            guard let event = try socket!.shakeHands() else { return .connected(socket!) }
            return .waiting(socket!.raw, events: event)
        } catch { return .failed(.tls, error.reason) }
    }
}
