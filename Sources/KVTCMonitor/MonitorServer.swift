import CMicroHTTPD
import Glibc
import KVTCProtocol
import KVTCSystem

/// Serves what monitors want over HTTP, read only: `/metrics` for Prometheus, `/healthz` and `/readyz` for supervisors, a status
/// page for people at `/`, and the document behind it at `/status.json`.
///
/// It is a process beside the daemon, which has no network: what is wrong with a request, or with the library that reads it, can
/// hurt the monitor only. 32 connections at a time, 15 seconds each without progress, 32 KiB of request each.
public final class MonitorServer: @unchecked Sendable {
    // Justified: `server` is set once by `init` and only stopped by `deinit`; the library locks what it points to.
    private let server: OpaquePointer
    private let handler: MonitorHandler
    private let listener: UnixListener?

    /// Begins to serve.
    /// - Parameters:
    ///   - names: whether names of sessions and numbers of tenants are shown.
    ///   - status: asks the daemon; called on threads of the server, one at a time, which it may block for a bounded time.
    /// - Throws: ``MonitorError`` where it can't listen.
    public init(
        at address: MonitorAddress, names: Bool,
        status: @escaping @Sendable () -> Result<StatusReport, MonitorError>
    ) throws(MonitorError) {
        var port: UInt16 = 0
        var socket: Int32 = -1
        switch address {
        case .loopback(let number):
            port = number
            listener = nil
        case .unix(let path):
            do throws(SystemError) { listener = try UnixListener(path: path, mode: 0o660) } catch {
                throw MonitorError("can't listen at \(address): \(error)")
            }
            // The server closes its own.
            socket = fcntl(listener!.descriptor.raw, F_DUPFD_CLOEXEC, 0)
        }
        handler = MonitorHandler(collector: Collector(status), names: names, checksHost: listener == nil)
        let started = cmicrohttpd_start(
            socket, port,
            { context, connection, url, method, _, _, _, _ in
                guard let context, let url, let method else { return .NO }
                // Justified: the server is stopped before its handler goes, so the pointer holds while requests come.
                let handler = Unmanaged<MonitorHandler>.fromOpaque(context).takeUnretainedValue()
                let host = cmicrohttpd_host(connection)
                return handler.answer(
                    method: String(cString: method), path: String(cString: url), host: host.map { String(cString: $0) }
                ).queue(connection)
            }, Unmanaged.passUnretained(handler).toOpaque())
        guard let started else {
            let reason = String(cString: strerror(errno))
            if socket >= 0 { close(socket) }
            listener?.removePath()
            throw MonitorError("can't listen at \(address): \(reason)")
        }
        server = started
    }

    deinit {
        MHD_stop_daemon(server)
        listener?.removePath()
    }

    /// The port that is served; 0 at a Unix socket.
    public var port: UInt16 { listener == nil ? cmicrohttpd_port(server) : 0 }
}
