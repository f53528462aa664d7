import ArgumentParser
import Foundation
import KVTCCommandLine
import KVTCDaemon
import KVTCProtocol
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
            Exit codes: 0 stopped in order, 1 could not start or could not write everything, 64 bad options or values \
            of options, 78 bad configuration. With --fsck: 0 nothing is damaged, 4 something is, 8 it could not be \
            checked.

            EXAMPLES
              kvtcd --config /etc/kvtcd/kvtcd.toml --check-config
              kvtcd --socket ~/kvtcd.sock --directory ~/pages --ram-budget 1GiB
              kvtcd --fsck /var/lib/kvtcd
            """,
        version: Daemon.version)

    @Option(help: "The configuration file.") var config: String?
    // Whatever follows is the value: what begins with a dash is judged where the value's form is known.
    @Option(parsing: .unconditional, help: "Where to listen.") var socket: String?
    @Option(parsing: .unconditional, help: "Where pages are kept on disk; empty for RAM only.") var directory: String?
    @Option(parsing: .unconditional, help: "RAM for pages, such as 4GiB.") var ramBudget: String?
    @Option(parsing: .unconditional, help: "Disk for pages, such as 100GiB; 0 for RAM only.") var diskBudget: String?
    @Option(parsing: .unconditional, help: "The directory of profiles.") var profiles: String?
    @Option(
        parsing: .unconditional,
        help: "The least severe level to log: \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")).")
    var logLevel: String?
    @Flag(help: "Check the configuration, show every value with where it comes from, and exit.") var checkConfig = false
    @Option(help: ArgumentHelp("Check the directory of a disk tier and exit; changes nothing.", valueName: "directory"))
    var fsck: String?
    @Flag(help: "With --fsck and --check-config: print the result as JSON.") var json = false

    static func main() { runProgram { $0.visible } }

    func validate() throws {
        if json, fsck == nil, !checkConfig {
            throw ValidationError("--json goes with --fsck DIRECTORY or --check-config")
        }
        if fsck == "" { throw ValidationError("--fsck needs the directory of a disk tier") }
        if config == "" { throw ValidationError("--config needs the path of a file") }
        if fsck != nil, checkConfig { throw ValidationError("--fsck and --check-config are separate checks") }
    }

    func run() throws {
        Machine.raiseOpenFiles()
        Machine.saveAddressSpace()
        if let fsck { throw ExitCode(DirectoryCheck(directory: fsck, asJSON: json).run()) }
        let signals = Signals()
        let settings = settings
        let (configuration, errors) = settings.read()
        if checkConfig { throw ExitCode(ConfigurationCheck(configuration, errors, asJSON: json).run()) }
        guard errors.isEmpty else {
            // What else is wrong is told along with it.
            throw refuse(ConfigurationErrors(errors + configuration.check(isTrial: true, besides: errors).errors))
        }
        let log = Logger(label: "kvtcd") { _ in KeyValueLog(level: configuration.logLevel) }
        defer { LogWriter.standardError.finish(seconds: 2) }
        let notifier = Notifier()
        let server: DaemonServer
        do {
            let inherited = InheritedDescriptors.take()
            server = try DaemonServer(
                configuration: configuration, inherited: inherited.listeners,
                keeper: keeper(inherited.stored, notifier, log), log: log)
            try server.start()
        } catch let error as ConfigurationErrors {
            throw refuse(error)
        } catch {
            log.critical("cannot start", metadata: ["error": "\(error)"])
            throw ExitCode.failure
        }
        if try !server.run(until: signals, notifier: notifier, reading: { settings.read() }) { throw ExitCode.failure }
    }

    /// The service manager's descriptor store keeps the RAM tier; without a service manager nothing does.
    private func keeper(
        _ stored: [(name: String, descriptor: Int32)], _ notifier: Notifier, _ log: Logger
    ) -> ArenaKeeper? {
        guard notifier.isSupervised else { return nil }
        return ArenaKeeper(
            kept: stored.map { ($0.name, $0.descriptor) },
            keep: { name, file in
                notifier.store(file, name: name) {
                    log.warning("the service manager does not keep an arena", metadata: ["name": "\(name)"])
                }
            },
            forget: { name, reason in
                notifier.removeStored(name: name)
                log.warning("kept arena dropped", metadata: ["name": "\(name)", "reason": "\(reason)"])
            })
    }

    /// What file and options say, each time anew.
    private var settings: Settings {
        Settings(
            file: config,
            options: [
                ("--socket", "socket.path", socket), ("--directory", "disk.directory", directory),
                ("--ram-budget", "ram.budget", ramBudget), ("--disk-budget", "disk.budget", diskBudget),
                ("--profiles", "profiles.directory", profiles), ("--log-level", "log.level", logLevel),
            ])
    }

    /// Tells what is wrong; a journal is told how severe it is.
    private func refuse(_ errors: ConfigurationErrors) -> ExitCode {
        let isJournal = ProcessInfo.processInfo.environment["JOURNAL_STREAM"] != nil
        for error in errors.all {
            standardError("\(isJournal ? "<2>" : "")kvtcd: \(error)\n")
        }
        return ExitCode(errors.exitCode)
    }
}
