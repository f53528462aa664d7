import CKVTC
import Glibc
import KVTCClient
import Synchronization

/// Why a call is not KVTC_OK.
enum Failure: Error {
    /// An argument that no daemon would take.
    case invalid(field: String, String)
    /// Nothing is asked for so many seconds more.
    case paused(seconds: Double)
    case client(ClientError)

    var status: kvtc_status {
        switch self {
        case .invalid: KVTC_INVALID
        case .paused: KVTC_UNAVAILABLE
        case .client(let error): error.isAway ? KVTC_UNAVAILABLE : KVTC_REFUSED
        }
    }

    var message: String {
        switch self {
        case .invalid(let field, let reason): "\(field): \(reason)"
        case .paused(let seconds): "kvtcd did not answer; it is asked again in \(Int(seconds.rounded(.up))) s"
        case .client(let error): "\(error)"
        }
    }
}

extension ClientError {
    /// Whether no daemon answers, rather than that a request was refused.
    var isAway: Bool {
        switch self {
        case .unreachable, .connectionLost, .timedOut: true
        case .refused(let error): error.code == .shuttingDown
        case .violation: false
        }
    }
}

/// Each thread's last message, as C text that lives until the next one or the thread's end.
enum LastError {
    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let code = pthread_key_create(&key) { free($0) }
        precondition(code == 0, "no key for a thread's last error: error \(code)")
        return key
    }()

    static func set(_ message: String) {
        free(pthread_getspecific(key))
        pthread_setspecific(key, strdup(message))
    }

    static var text: UnsafePointer<CChar>? {
        pthread_getspecific(key).map { UnsafePointer($0.assumingMemoryBound(to: CChar.self)) }
    }
}
