import KVTCProtocol
import KVTCShared

extension SharedReport {
    init(_ found: SharedStatistics) {
        self.init()
        (asked, hits, absent, knownAbsent) = (found.asked, found.hits, found.absent, found.knownAbsent)
        (fetchedPages, fetchedBytes) = (found.fetchedPages, found.fetchedBytes)
        (writtenPages, writtenBytes) = (found.writtenPages, found.writtenBytes)
        (known, waiting, removed) = (found.known, found.waiting, found.removed)
        heldBack = [
            Count(reason: "budget", count: found.heldBack.budget), Count(reason: "fault", count: found.heldBack.fault),
            Count(reason: "queue", count: found.heldBack.queue),
        ]
        faults = found.faults.sorted { $0.key < $1.key }.map { Count(reason: $0.key, count: $0.value) }
        pausedFor = found.pausedFor?.rawValue
        (lookup, fetch) = (StatusReport.Latency(found.asks), StatusReport.Latency(found.fetches))
        servers = found.servers.map(Server.init)
    }
}

extension SharedReport.Server {
    fileprivate init(_ node: NodeStatus) {
        self.init(
            address: "\(node.address)", breaker: node.breaker, inFlight: node.inFlight, bytesOut: node.bytesOut,
            bytesIn: node.bytesIn)
        (fault, reason) = (node.lastFault?.fault.rawValue, node.lastFault?.reason)
        (p50, p99) = (node.microseconds(0.5), node.microseconds(0.99))
    }
}
