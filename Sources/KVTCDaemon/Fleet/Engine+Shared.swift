import KVTCProtocol
import KVTCShared

extension Engine {
    /// Asks or clears the servers that machines share. Takes as long as they do, a few seconds at most.
    func sharedServers(_ request: SharedRequest, _ caller: Caller) throws(WireError) -> JSONReply {
        guard caller.isAdministrator else {
            throw WireError(.forbidden, "only administrators may ask and clear the servers of a fleet")
        }
        guard let fleet = shared as? FleetTier else {
            throw WireError(
                .invalidField, field: "shared", "nothing is shared: shared.url is empty in the daemon's configuration")
        }
        switch request.action {
        case .ping: return JSONReply(SharedServers.Ping(servers: fleet.ping().map(SharedServers.Ping.Server.init)))
        case .usage: return JSONReply(SharedServers.Usage(servers: fleet.usage().map(SharedServers.Usage.Server.init)))
        case .drop:
            let step: FleetDrop
            do throws(RedisFault) { step = try fleet.drop(from: request.place.isEmpty ? nil : request.place) } catch {
                throw WireError(
                    .ioError, field: "shared",
                    "a server of the fleet did not answer (\(error.rawValue)): what is left there stays")
            }
            audit(
                "shared pages dropped", caller,
                ["values": "\(step.removed)", "state": step.next == nil ? "done" : "goes on"], level: .notice)
            return JSONReply(SharedServers.Drop(removed: step.removed, next: step.next))
        }
    }
}

extension SharedServers.Ping.Server {
    fileprivate init(_ ping: FleetPing) {
        switch ping.result {
        case .success(let us): self.init(address: "\(ping.address)", us: us, fault: nil)
        case .failure(let fault): self.init(address: "\(ping.address)", us: nil, fault: fault.rawValue)
        }
    }
}

extension SharedServers.Usage.Server {
    fileprivate init(_ usage: FleetUsage) {
        self.init(address: "\(usage.address)", fault: usage.fault?.rawValue)
        (values, bytes, isEstimate) = (usage.values, usage.bytes, usage.isEstimate)
        (usedBytes, maxBytes, policy) = (usage.usedBytes, usage.mostBytes, usage.policy)
    }
}
