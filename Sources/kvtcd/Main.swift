import ArgumentParser
import Foundation
import KVTCDaemon
import KVTCStore
import KVTCSystem
import Logging

@main
struct Main: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kvtcd",
        abstract: "Keeps the KV caches of inference workers: compressed, in RAM and on disk.",
        discussion: """
            Without --config it serves with defaults. Options override the configuration file.
            Exit codes: 0 stopped in order, 1 could not start or could not write everything, 64 bad options, \
            78 bad configuration, values of options among it. With --fsck: 0 nothing is damaged, 4 something is, \
            8 it could not be checked.
            """,
        version: Daemon.version)

    @Option(help: "The configuration file.") var config: String?
    @Option(help: "Where to listen.") var socket: String?
    @Option(help: "Where pages are kept on disk; empty for RAM only.") var directory: String?
    @Option(help: "RAM for pages, such as 4GiB.") var ramBudget: String?
    @Option(help: "Disk for pages, such as 100GiB; 0 for RAM only.") var diskBudget: String?
    @Option(help: "The directory of profiles.") var profiles: String?
    @Flag(help: "Check the configuration and exit.") var checkConfig = false
    @Option(help: ArgumentHelp("Check the directory of a disk tier and exit; changes nothing.", valueName: "directory"))
    var fsck: String?
    @Flag(help: "With --fsck: print the result as JSON.") var json = false
    @Option(help: "The least severe level to log: \(ConfigurationFile.levels.joined(separator: ", ")).")
    var logLevel: String?

    func validate() throws {
        if json, fsck == nil { throw ValidationError("--json goes with --fsck DIRECTORY") }
    }

    func run() throws {
        if let fsck { throw ExitCode(DirectoryCheck(directory: fsck, asJSON: json).run()) }
        let signals = TerminationSignals()
        let configuration: DaemonConfiguration
        do throws(ConfigurationError) {
            configuration = try settings()
            if checkConfig { try configuration.validate(isTrial: true) }
        } catch {
            FileHandle.standardError.write(Data("kvtcd: \(error)\n".utf8))
            throw ExitCode(78)
        }
        guard !checkConfig else { return print("configuration is good") }
        let isJournal = ProcessInfo.processInfo.environment["JOURNAL_STREAM"] != nil
        let level = Logger.Level(rawValue: configuration.logLevel) ?? .info
        let log = Logger(label: "kvtcd") { _ in KeyValueLog(level: level, isJournal: isJournal) }
        let notifier = Notifier()
        let server: DaemonServer
        do {
            let inherited = InheritedDescriptors.take()
            server = try DaemonServer(
                configuration: configuration, inherited: inherited.listeners,
                keeper: keeper(inherited.stored, notifier, log), log: log)
            try server.start()
        } catch {
            log.critical("cannot start", metadata: ["error": "\(error)"])
            throw error is ConfigurationError ? ExitCode(78) : ExitCode.failure
        }
        notifier.ready(status: server.summary())
        // Three signs of life in the time that the service manager allows for one.
        let interval = min(10_000, Int((notifier.watchdogMicroseconds ?? 30_000_000) / 3000))
        while signals.wait(milliseconds: max(interval, 1)) == nil {
            server.maintain()
            notifier.status(server.summary())
            notifier.watchdog()
        }
        if !server.stop(notifier: notifier) { throw ExitCode.failure }
    }

    /// The service manager's descriptor store keeps the RAM tier; without a service manager nothing does.
    private func keeper(
        _ stored: [(name: String, descriptor: Int32)], _ notifier: Notifier, _ log: Logger
    ) -> ArenaKeeper? {
        guard notifier.isSupervised else { return nil }
        return ArenaKeeper(
            kept: stored.map { ($0.name, $0.descriptor) },
            keep: { name, file in
                if !notifier.store(file, name: name) {
                    log.warning("the service manager does not keep an arena", metadata: ["name": "\(name)"])
                }
            },
            forget: { name, reason in
                notifier.removeStored(name: name)
                log.warning("kept arena dropped", metadata: ["name": "\(name)", "reason": "\(reason)"])
            })
    }

    private func settings() throws(ConfigurationError) -> DaemonConfiguration {
        var settings = DaemonConfiguration(environment: ProcessInfo.processInfo.environment)
        if let config {
            guard let data = FileManager.default.contents(atPath: config) else {
                throw ConfigurationError(key: "", "cannot read \(config)")
            }
            try ConfigurationFile.apply(String(decoding: data, as: UTF8.self), file: config, to: &settings)
        }
        if let socket { settings.socketPath = socket }
        if let directory { settings.directory = directory.isEmpty ? nil : directory }
        if let profiles { settings.profileDirectory = profiles }
        if let ramBudget { settings.ramBudget = try size(ramBudget, "--ram-budget") }
        if let diskBudget { settings.diskBudget = try size(diskBudget, "--disk-budget") }
        if let logLevel {
            guard ConfigurationFile.levels.contains(logLevel) else {
                throw ConfigurationError(key: "--log-level", "\(logLevel) is not a level")
            }
            settings.logLevel = logLevel
        }
        return settings
    }

    private func size(_ text: String, _ option: String) throws(ConfigurationError) -> Int {
        guard let bytes = ByteSize.parse(text) else {
            throw ConfigurationError(key: option, "\(text) is not a size such as 4GiB")
        }
        return bytes
    }
}
