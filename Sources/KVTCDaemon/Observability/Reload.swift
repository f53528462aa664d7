import KVTCSystem
import Logging
import Synchronization

/// Reads what a daemon is told anew: options and configuration file, and what is wrong with them.
public typealias ConfigurationReading = @Sendable () -> (DaemonConfiguration, [ConfigurationError])

extension DaemonServer {
    /// Has configuration and profiles read anew, beside everything else; `done` is called when that is over. Who asks meanwhile
    /// has them read once more.
    func reload(_ reading: @escaping ConfigurationReading, done: @escaping @Sendable () -> Void) {
        guard reloads.add(1, ordering: .acquiringAndReleasing).oldValue == 0 else { return }
        engine.readers.submit(.background) { [self] in
            var seen: Int
            repeat {
                seen = reloads.load(ordering: .acquiring)
                takeOver(reading)
                engine.profiles.scan(log: log)
            } while !reloads.compareExchange(expected: seen, desired: 0, ordering: .acquiringAndReleasing).exchanged
            done()
        }
    }

    /// Takes over what a running daemon can; all of it or, where anything is wrong, nothing. What has to wait for a restart is
    /// named.
    private func takeOver(_ reading: ConfigurationReading) {
        let (wanted, errors) = reading()
        let findings = wanted.check(isTrial: true, bound: doors.map(\.listener.boundPath), besides: errors)
        let wrong = ConfigurationErrors(errors + findings.errors).all
        guard wrong.isEmpty else {
            for error in wrong {
                log.error(
                    "the configuration is wrong: nothing of it is taken over, mend it and reload",
                    metadata: ["error": .stringConvertible(error)])
            }
            return
        }
        for warning in findings.warnings {
            log.warning("questionable configuration", metadata: ["about": "\(warning)"])
        }
        let change = ConfigurationChange(from: engine.configuration, to: wanted)
        engine.adopt(change.configuration)
        tenants.adopt(change.configuration)
        log.notice(
            "configuration read anew",
            metadata: ["changed": "\(ConfigurationChange.lines(change.taken, in: wanted))"])
        guard !change.waiting.isEmpty else { return }
        log.warning(
            "settings wait for a restart (systemctl restart kvtcd; pages in RAM stay)",
            metadata: [
                "wanted": "\(ConfigurationChange.lines(change.waiting, in: wanted))",
                "in_effect": "\(ConfigurationChange.lines(change.waiting, in: engine.configuration))",
            ])
    }
}

extension Engine {
    /// Has another configuration in effect from now on. Connections that are there keep the limits that they were told of.
    func adopt(_ configuration: DaemonConfiguration) {
        settings.withLock { $0 = configuration }
        ledger.update { $0.code = configuration.codeInEffect }
        store.limitTenants(ram: configuration.limits.ramPerUser, disk: configuration.limits.diskPerUser)
        var log = log
        log.logLevel = configuration.logLevel
    }
}
