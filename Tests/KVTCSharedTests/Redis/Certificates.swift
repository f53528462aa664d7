import Foundation
import KVTCShared
import TestSupport

/// An authority and the certificates that it signs, as files in a directory.
struct Certificates {
    let directory: TemporaryDirectory

    init(in directory: TemporaryDirectory) throws {
        self.directory = directory
        try run(
            ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"]
                + Certificates.newKey)
    }

    private static let newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]

    private func run(_ arguments: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.currentDirectoryURL = URL(fileURLWithPath: directory.path)
        process.arguments = arguments
        process.standardError = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw CocoaError(.executableLoad) }
    }

    /// Makes NAME.crt and NAME.key for these addresses and names.
    func make(_ name: String, for hosts: String, isExpired: Bool = false) throws {
        try run(
            [
                "req", "-new", "-nodes", "-subj", "/CN=\(name)", "-addext", "subjectAltName=\(hosts)", "-keyout",
                "\(name).key",
            ]
                + ["-out", "\(name).csr"] + Certificates.newKey)
        try run(
            [
                "x509", "-req", "-in", "\(name).csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days",
                isExpired ? "-1" : "2",
            ]
                + ["-copy_extensions", "copy", "-out", "\(name).crt"])
    }

    /// What a client has of them.
    func files(_ name: String?) -> TLSFiles {
        TLSFiles(
            authorities: directory.file("ca.crt"), certificate: name.map { directory.file("\($0).crt") },
            key: name.map { directory.file("\($0).key") })
    }

    /// What a server is told, with this certificate.
    func arguments(_ name: String) -> [String] {
        [
            "--tls-cert-file", directory.file("\(name).crt"), "--tls-key-file", directory.file("\(name).key"),
            "--tls-ca-cert-file", directory.file("ca.crt"),
        ]
    }
}
