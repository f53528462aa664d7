import ArgumentParser
import Glibc
import KVTCSystem

extension ParsableCommand {
    /// Parses the command line, runs what it says, and ends the process with the status that follows.
    /// - Parameter show: how a line may be shown that repeats what is on the command line.
    public static func runProgram(showing show: (String) -> String) -> Never {
        StandardStreams.fill()
        StandardOutput.watchEnd(of: configuration.commandName ?? "")
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            let code = exitCode(for: error)
            let message = fullMessage(for: error)
            if message.isEmpty {
                // All has been said.
            } else if code.isSuccess {
                // Help, the version or a completion script.
                print(lines(of: message).joined(separator: "\n"))
            } else {
                standardError(lines(of: message.withArgumentsOnOneLine).map(show).joined(separator: "\n") + "\n")
            }
            Glibc.exit(code.rawValue)
        }
        Glibc.exit(EXIT_SUCCESS)
    }

    /// The lines of a message; those of the usage, which the parser does not wrap, with no more than 80 characters.
    private static func lines(of message: String) -> [String] {
        message.split(separator: "\n", omittingEmptySubsequences: false).flatMap { line in
            guard line.lowercased().hasPrefix("usage: "), line.count > 80 else { return [String(line)] }
            var lines = [""]
            // A bracket stays whole.
            for part in line.replacing(" [", with: "\n[").split(separator: "\n") {
                if lines[lines.count - 1].count + 1 + part.count > 80 { lines.append("      ") }
                lines[lines.count - 1] += (lines == [""] ? "" : " ") + part
            }
            return lines
        }
    }
}

extension String {
    /// A message with the ends of lines escaped that come from the command line.
    public var withArgumentsOnOneLine: String {
        CommandLine.arguments.dropFirst().filter { $0.contains(where: \.isNewline) }.reduce(self) { message, argument in
            let value = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).last ?? ""
            return [argument, String(value)].reduce(message) { text, part in
                text.replacing(part, with: part.replacing("\r", with: "\\r").replacing("\n", with: "\\n"))
            }
        }
    }
}
