import Foundation
import KVTCDaemon

/// What file and options of the command line say.
struct Settings: Sendable {
    var file: String?
    /// Each with the key that it sets and its value, if it was given.
    var options: [(option: String, key: String, text: String?)]

    /// Reads the file, and what the options say over it; and what is wrong with that.
    func read() -> (DaemonConfiguration, [ConfigurationError]) {
        var configuration = DaemonConfiguration(environment: ProcessInfo.processInfo.environment)
        var errors = file.map { ConfigurationFile.read($0, into: &configuration) } ?? []
        for case (let option, let key, let text?) in options {
            do throws(ConfigurationError) { try configuration.set(key, to: text, option: option) } catch {
                errors.append(error)
            }
        }
        return (configuration, errors)
    }
}
