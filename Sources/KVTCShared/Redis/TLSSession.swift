import CSSL
import Glibc

/// Why there is no TLS.
struct TLSFailure: Error { var reason: String }

/// The client's end of TLS on a socket that does not wait. The server has to prove that it is the host that was asked for.
final class TLSSession {
    // Justified: OpenSSL's session is used by the one thread that has the socket, and freed with this object.
    private let session: OpaquePointer

    /// Reads the files; a connection is rare, and renewed files need no restart that way.
    init(_ socket: Int32, _ files: TLSFiles, host: String) throws(TLSFailure) {
        ERR_clear_error()
        guard let context = SSL_CTX_new(TLS_client_method()) else { throw TLSSession.failure("TLS") }
        // The session keeps it alive.
        defer { SSL_CTX_free(context) }
        _ = cssl_modern_only(context)
        cssl_allow_partial_writes(context)
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        if let authorities = files.authorities {
            guard SSL_CTX_load_verify_locations(context, authorities, nil) == 1 else {
                throw TLSSession.failure("authorities in \(authorities)")
            }
        } else if SSL_CTX_set_default_verify_paths(context) != 1 {
            throw TLSSession.failure("the system's authorities")
        }
        if let certificate = files.certificate {
            guard SSL_CTX_use_certificate_chain_file(context, certificate) == 1 else {
                throw TLSSession.failure("certificate in \(certificate)")
            }
            let key = files.key ?? certificate
            guard SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1 else {
                throw TLSSession.failure("key in \(key)")
            }
        }
        guard let session = SSL_new(context) else { throw TLSSession.failure("TLS") }
        self.session = session
        let parameters = SSL_get0_param(session)
        // A certificate names hosts and addresses apart, and no address is sent as a name.
        if X509_VERIFY_PARAM_set1_ip_asc(parameters, host) != 1 {
            guard SSL_set1_host(session, host) == 1, cssl_name_server(session, host) == 1 else {
                throw TLSSession.failure("host \(host)")
            }
        }
        guard SSL_set_fd(session, socket) == 1 else { throw TLSSession.failure("TLS") }
        SSL_set_connect_state(session)
    }

    deinit { SSL_free(session) }

    /// The event to wait for before going on, or nil when hands are shaken.
    func shakeHands() throws(TLSFailure) -> Int32? {
        ERR_clear_error()
        let result = SSL_do_handshake(session)
        if result == 1 { return nil }
        switch SSL_get_error(session, result) {
        case SSL_ERROR_WANT_READ: return POLLIN
        case SSL_ERROR_WANT_WRITE: return POLLOUT
        default:
            let verdict = SSL_get_verify_result(session)
            guard verdict == Int(X509_V_OK) else {
                throw TLSFailure(
                    reason: "the server's certificate: \(String(cString: X509_verify_cert_error_string(verdict)))")
            }
            throw TLSSession.failure("TLS")
        }
    }

    func send(_ bytes: UnsafeRawBufferPointer) -> SocketOutcome {
        ERR_clear_error()
        var count = 0
        let result = SSL_write_ex(session, bytes.baseAddress, bytes.count, &count)
        return outcome(result, count)
    }

    func receive(_ bytes: UnsafeMutableRawBufferPointer) -> SocketOutcome {
        ERR_clear_error()
        var count = 0
        let result = SSL_read_ex(session, bytes.baseAddress, bytes.count, &count)
        return outcome(result, count)
    }

    private func outcome(_ result: Int32, _ count: Int) -> SocketOutcome {
        if result == 1 { return .bytes(count) }
        switch SSL_get_error(session, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .later
        case SSL_ERROR_ZERO_RETURN: return .ended(.unreachable, "the server closed the connection")
        case SSL_ERROR_SYSCALL: return .ended(.unreachable, "the connection broke")
        default: return .ended(.tls, TLSSession.failure("TLS").reason)
        }
    }

    private static func failure(_ what: String) -> TLSFailure {
        let code = ERR_get_error()
        ERR_clear_error()
        guard code != 0 else { return TLSFailure(reason: "\(what): the server ended the handshake") }
        if let text = ERR_reason_error_string(code) { return TLSFailure(reason: "\(what): \(String(cString: text))") }
        return TLSFailure(reason: "\(what): error \(code)")
    }
}
