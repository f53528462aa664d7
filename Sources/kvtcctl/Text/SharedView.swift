import KVTCProtocol

/// The tier that machines share, in lines for people.
enum SharedView {
    static func facts(_ shared: SharedReport) -> [String] {
        let down = shared.servers.filter { !$0.isUp }
        let asked = shared.asked + shared.knownAbsent
        let rate = asked > 0 ? " (\(Text.decimal(Double(shared.hits) / Double(asked) * 100, 1)) %)" : ""
        var lines = [
            "shared   \(Text.count(shared.servers.count, "server")), \(Text.count(down.count)) away; "
                + "\(Text.count(asked, "page")) looked for, \(Text.count(shared.hits)) found\(rate), "
                + "\(Text.count(shared.knownAbsent)) known not to be there",
            "moved    \(Text.count(shared.fetchedPages)) brought (\(Text.bytes(shared.fetchedBytes))), "
                + "\(Text.count(shared.writtenPages)) written (\(Text.bytes(shared.writtenBytes))), "
                + "\(Text.count(shared.known)) there already, \(Text.count(shared.waiting)) waiting, "
                + "\(Text.count(shared.heldBack.reduce(0) { $0 + $1.count })) held back",
        ]
        let faults = shared.faults.filter { $0.count > 0 }
        if !faults.isEmpty {
            let reasons = faults.map { "\(Text.count($0.count)) \($0.reason)" }.joined(separator: ", ")
            lines.append("faults   \(reasons)")
        }
        if let reason = shared.pausedFor { lines.append("paused   nothing is written for now: \(reason)") }
        for server in down {
            let why = (server.reason ?? server.fault).map { ": \($0.escapedForDisplay)" } ?? ""
            lines.append("away     \(server.address.escapedForDisplay)\(why)")
        }
        return lines
    }
}
