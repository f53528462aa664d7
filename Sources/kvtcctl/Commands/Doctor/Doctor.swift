import ArgumentParser
import Glibc
import KVTCClient
import KVTCDoctor
import KVTCProtocol

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Examine daemon, configuration and machine, and say how to mend what is wrong.",
        discussion: """
            Looks at the configuration, the limits of the daemon's process, permissions, disk, clock, control groups, \
            kernel, systemd's descriptor store, namespaces, profiles and releases. Changes nothing. Works whether or not \
            the daemon does; what the caller may not see is said, and root sees all. Exit status 1 when there is a problem.

            EXAMPLES
              sudo kvtcctl doctor
              kvtcctl doctor --socket ~/kvtcd.sock --config ~/kvtcd.toml
              kvtcctl doctor --json | jq '.findings[] | select(.severity == "problem")'
            """)

    @OptionGroup var connection: ConnectionOptions

    @Option(help: "The configuration to check (default: that of the daemon).", completion: .file(extensions: ["toml"]))
    var config: String?

    @Flag(help: "Print {\"problems\", \"warnings\", \"notes\", \"findings\"}.")
    var json = false

    private struct Document: Encodable {
        var problems, warnings, notes: Int
        var findings: [Finding]
    }

    func run() throws {
        let reader = SceneReader(
            socketPath: Client.socketPath(connection.socket), configuration: config,
            timeout: min(connection.timeout, 10),
            version: Kvtcctl.release)
        let examination = Examination(reader.read())
        let counts = [Severity.problem, .warning, .note].map(examination.count)
        if json {
            print(
                try jsonLine(
                    Document(
                        problems: counts[0], warnings: counts[1], notes: counts[2], findings: examination.findings)))
        } else {
            Terminal.show(examination.findings.flatMap(lines))
            let sums = zip(counts, ["problem", "warning", "note"]).map { Text.count($0, $1) }
            print("\n\(sums.joined(separator: ", "))")
        }
        if counts[0] > 0 { throw ExitCode(1) }
    }

    private static let width = Severity.allCases.map(\.rawValue.count).max() ?? 0

    /// The finding in a line; where there is something to say or to do about it, that below.
    private func lines(_ finding: Finding) -> [String] {
        let room = String(repeating: " ", count: DoctorCommand.width - finding.severity.rawValue.count)
        let indent = DoctorCommand.width + 2
        func below(_ title: String, _ text: String) -> [String] {
            Terminal.wrapped(Terminal.shown("\(title)\(text)"), margin: indent, indent: title.count)
        }
        let head = "\(finding.severity.rawValue)\(room)  \(finding.check): \(finding.found)"
        var lines = Terminal.wrapped(Terminal.shown(head), indent: indent)
        guard let means = finding.means else { return lines }
        // A heading that stands out among those that are well.
        lines[0] = Terminal.bold(lines[0])
        lines += below("", means) + below("looked at: ", finding.lookedAt)
        // A command is pasted as one line, however narrow the terminal is.
        if let mend = finding.mend {
            lines.append(String(repeating: " ", count: indent) + Terminal.shown("mend:      \(mend)"))
        }
        return lines
    }
}
