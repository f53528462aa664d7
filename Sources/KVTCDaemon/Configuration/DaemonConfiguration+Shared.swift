import Glibc
import KVTCShared
import KVTCSystem

extension DaemonConfiguration {
    /// What is wrong with `[shared]`: the address, and files that are needed for it.
    func checkShared(_ findings: inout Findings) {
        guard !shared.url.isEmpty else { return }
        let url: RedisURL
        do throws(RedisURLError) { url = try RedisURL(shared.url) } catch {
            return findings.errors.append(about("shared.url", "\(error)"))
        }
        if shared.secretFile.isEmpty {
            findings.errors.append(
                about(
                    "shared.secret_file",
                    "is needed with shared.url: 'openssl rand -hex 32' makes a secret; the same file on all machines"))
        } else {
            do throws(FleetSecretError) { _ = try FleetSecret(file: shared.secretFile) } catch {
                findings.errors.append(about("shared.secret_file", "\(error)"))
            }
        }
        let files = [
            ("shared.password_file", shared.passwordFile), ("shared.ca_file", shared.authorityFile),
            ("shared.certificate_file", shared.certificateFile), ("shared.key_file", shared.keyFile),
        ]
        for (key, path) in files where !path.isEmpty && access(path, R_OK) != 0 {
            findings.errors.append(about(key, "cannot be read: \(String(cString: strerror(errno)))"))
        }
        if shared.certificateFile.isEmpty != shared.keyFile.isEmpty {
            let missing = shared.keyFile.isEmpty ? "shared.key_file" : "shared.certificate_file"
            findings.errors.append(about(missing, "is needed: a certificate and its key go together"))
        }
        for (key, path) in files.dropFirst() where !path.isEmpty && !url.isTLS {
            findings.warnings.append(about(key, "is not used: the URL is not one of TLS (rediss://)"))
        }
        for (key, path) in [("shared.secret_file", shared.secretFile), files[0], files[3]] where isOpen(path) {
            findings.warnings.append(about(key, "every user of this machine may read it: chmod 600"))
        }
    }

    private func isOpen(_ path: String) -> Bool {
        var info = stat()
        return !path.isEmpty && stat(path, &info) == 0 && info.st_mode & S_IROTH != 0
    }
}
