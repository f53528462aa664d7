import Foundation
import KVTCShared
import KVTCSystem
import TestSupport

/// Three masters, which share the slots evenly, and a replica of each, with TLS between all of them.
final class Cluster {
    enum Failure: Error { case answer(String, Result<RESPValue, RedisFault>), late(String) }

    let certificates: Certificates
    let servers: [RedisServer]
    /// A client of each server alone, on its socket.
    let controls: [RedisClient]
    let identifiers: [String]

    static let slots = [0...5460, 5461...10_922, 10_923...16_383]

    init() throws {
        let certificates = try Certificates(in: try TemporaryDirectory())
        self.certificates = certificates
        try certificates.make("server", for: "IP:127.0.0.1")
        servers = try (0..<6).map { _ in
            try RedisServer(
                certificates.arguments("server") + [
                    "--tls-auth-clients", "no", "--tls-cluster", "yes", "--tls-replication", "yes", "--cluster-enabled",
                    "yes",
                    "--cluster-port", "\(try RedisServer.freePort())", "--cluster-node-timeout", "1000",
                    "--repl-diskless-sync-delay", "0",
                    "--repl-ping-replica-period", "1",
                    "--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no",
                ], onPort: "--tls-port")
        }
        controls = try servers.map { RedisClient(try $0.settings) }
        identifiers = try controls.map { try Cluster.tell($0, "CLUSTER", "MYID").text! }
        let busPorts = try controls.map { try Cluster.tell($0, "CONFIG", "GET", "cluster-port").array![1].text! }
        for (index, control) in controls.enumerated() {
            try Cluster.tell(control, "CLUSTER", "SET-CONFIG-EPOCH", "\(index + 1)")
        }
        for (control, slots) in zip(controls, Cluster.slots) {
            try Cluster.tell(control, "CLUSTER", "ADDSLOTSRANGE", "\(slots.lowerBound)", "\(slots.upperBound)")
        }
        for (server, busPort) in zip(servers, busPorts).dropFirst() {
            try Cluster.tell(controls[0], "CLUSTER", "MEET", "127.0.0.1", "\(server.port)", busPort)
        }
        for control in controls {
            try Cluster.wait("the cluster") {
                let info = try Cluster.tell(control, "CLUSTER", "INFO").text!
                return info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6")
            }
        }
        for index in 0..<3 { try Cluster.tell(controls[3 + index], "CLUSTER", "REPLICATE", identifiers[index]) }
        for control in controls[3...] {
            try Cluster.wait("a replica") {
                try Cluster.tell(control, "INFO", "replication").text!.contains("master_link_status:up")
            }
        }
        // Who asks any of them is to learn of three masters.
        for control in controls {
            try Cluster.wait("the roles") {
                try Cluster.tell(control, "CLUSTER", "SLOTS").array!.allSatisfy { $0.array!.count == 4 }
            }
        }
    }

    /// Tells one server something that has to work.
    @discardableResult
    static func tell(_ control: RedisClient, _ words: String...) throws -> RESPValue {
        let result = control.ask(RedisCommand(words.map { Array($0.utf8) }))
        guard case .success(let value) = result else { throw Failure.answer(words.joined(separator: " "), result) }
        return value
    }

    /// Servers tell nobody when they are of one mind; so they are asked.
    static func wait(_ what: String, until isReached: () throws -> Bool) throws {
        let limit = MonotonicClock.after(30)
        let never = try WakeUp()
        while try !isReached() {
            guard MonotonicClock.nanoseconds < limit else { throw Failure.late(what) }
            _ = never.wait(milliseconds: 10)
        }
    }

    /// How a client reaches it: by a master and by a replica.
    var settings: RedisSettings {
        get throws {
            var settings = RedisSettings(
                url: try RedisURL("rediss+cluster://127.0.0.1:\(servers[3].port),127.0.0.1:\(servers[0].port)"))
            settings.tls = certificates.files(nil)
            return settings
        }
    }
}
