/// Sockets of containers: every peer on one is the tenant of that name.
extension DaemonConfiguration {
    /// Adds a container's socket.
    mutating func addContainer(_ name: String, socket path: String, key: String) throws(ConfigurationError) {
        func refuse(_ what: String) -> ConfigurationError { ConfigurationError(key: key, what) }
        guard (1...64).contains(name.utf8.count) else { throw refuse("the name of a container has 1 to 64 bytes") }
        guard path.hasPrefix("/") else { throw refuse("\(path) is no absolute path of a socket") }
        guard path.utf8.count <= 107 else { throw refuse("longer than the 107 bytes a socket address holds") }
        let tenant = Tenants.tenant(ofContainer: name)
        for (other, taken) in containers where other != name {
            if taken == path { throw refuse("\(path) is the socket of container \(other) already") }
            if Tenants.tenant(ofContainer: other) == tenant {
                throw refuse("\(name) and \(other) would have the same number \(tenant): name one of them otherwise")
            }
        }
        containers[name] = path
    }

    /// The socket that users connect to must not be a container's, where all of them would be one tenant.
    func checkContainers(_ findings: inout Findings) {
        guard let name = containers.first(where: { $0.value == socketPath })?.key else { return }
        let key = "containers.\(name)"
        findings.errors.append(
            ConfigurationError(key: key, "\(socketPath) is socket.path already", origin: origin(of: key)))
    }
}
