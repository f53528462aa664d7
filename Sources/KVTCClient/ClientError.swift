import Glibc
import KVTCProtocol
import KVTCSystem

/// Why a request to the daemon failed.
public enum ClientError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No daemon answers on the socket.
    case unreachable(path: String, reason: String)
    /// The daemon refused the request; the connection goes on.
    case refused(WireError)
    /// The connection ended. Pages acknowledged before are not affected.
    case connectionLost(String)
    /// No reply came in time. The connection is closed, because what comes later could not be told apart.
    case timedOut(Opcode, seconds: Int)
    /// The daemon sent what the protocol does not allow.
    case violation(String)

    /// What happened, and what to do about it.
    public var description: String {
        switch self {
        case .unreachable(let path, let reason):
            """
            no kvtcd answers on \(path): \(reason)
            \(denied(reason)
                ? "Its socket is for the group kvtcd: 'adduser YOU kvtcd' as root, then log in again."
                : "Start it with 'systemctl start kvtcd.socket', or name its socket with --socket or KVTC_SOCKET. If it failed before, 'journalctl -p err -u kvtcd' says why.")
            """
        case .refused(let error): "the daemon refused: \(error)"
        case .connectionLost(let reason):
            "the connection to kvtcd ended: \(reason)\nIt may have been restarted: try again, or see 'journalctl -u kvtcd'."
        case .timedOut(let opcode, let seconds):
            "no answer to \(opcode) within \(seconds) s\nSee 'kvtcctl status' for the daemon's queues, or wait longer with --timeout."
        case .violation(let what): "kvtcd sent what the protocol does not allow: \(what)"
        }
    }

    private func denied(_ reason: String) -> Bool { reason == String(cString: strerror(EACCES)) }

    /// Whether the same request may succeed a moment later.
    public var isTransient: Bool {
        switch self {
        case .refused(let error): error.code == .shuttingDown || error.code == .limitExceeded || error.code == .timeout
        case .connectionLost, .timedOut: true
        case .unreachable, .violation: false
        }
    }
}
