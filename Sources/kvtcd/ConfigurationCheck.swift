import KVTCCommandLine
import KVTCDaemon

/// `kvtcd --check-config`: what is wrong with a configuration, and every value in effect with where it comes from.
struct ConfigurationCheck {
    private let configuration: DaemonConfiguration
    private let errors: ConfigurationErrors
    private let warnings: [ConfigurationError]
    private let asJSON: Bool

    /// - Parameter errors: what is known to be wrong.
    init(_ configuration: DaemonConfiguration, _ errors: [ConfigurationError], asJSON: Bool) {
        self.configuration = configuration
        let findings = configuration.check(isTrial: true, besides: errors)
        self.errors = ConfigurationErrors(errors + findings.errors)
        warnings = findings.warnings
        self.asJSON = asJSON
    }

    /// Prints the result; returns the exit status.
    func run() -> Int32 {
        if asJSON {
            print(json(report()))
        } else {
            for error in errors.all { standardError("kvtcd: \(error)\n") }
            for warning in warnings { standardError("kvtcd: warning: \(warning)\n") }
            if errors.all.isEmpty { print(text()) }
        }
        return errors.all.isEmpty ? 0 : errors.exitCode
    }

    /// A configuration file that says the same as file, options and defaults together.
    private func text() -> String {
        let lines = configuration.lines
        let width = lines.map(\.assignment.count).filter { $0 < 60 }.max() ?? 0
        let rows = lines.map { line in
            let room = String(repeating: " ", count: max(0, width - line.assignment.count))
            return "\(line.assignment)\(room)  # \(line.place)"
        }
        return (["# configuration is good"] + rows).joined(separator: "\n")
    }

    private struct Report: Encodable {
        struct Setting: Encodable { var key: String, value: ConfigurationValue, source: String, place: String }
        struct Problem: Encodable { var key: String, message: String, source: String, place: String, text: String }
        var good: Bool, errors: [Problem], warnings: [Problem], settings: [Setting]
    }

    private func report() -> Report {
        Report(
            good: errors.all.isEmpty, errors: errors.all.map(problem), warnings: warnings.map(problem),
            settings: configuration.settings.map {
                Report.Setting(key: $0.key, value: $0.value, source: $0.origin.kind, place: $0.origin.place)
            })
    }

    private func problem(_ error: ConfigurationError) -> Report.Problem {
        Report.Problem(
            key: error.key, message: error.message, source: error.origin.kind, place: error.origin.place,
            text: "\(error)")
    }
}
