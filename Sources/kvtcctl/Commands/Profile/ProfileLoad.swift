import ArgumentParser
import Glibc
import KVTCClient
import KVTCCodec
import KVTCProtocol

struct ProfileLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Give the daemon a profile, or have it read one of its directory.",
        discussion: """
            A FILE that is there is checked, handed to the daemon and kept in its profile directory under its name, which \
            takes an administrator. A name without a path that is no file here is one of the daemon's directory, put there \
            by other means. Whoever has a session with the profile that had the name before keeps it; new sessions choose \
            by id. Loading a profile again is harmless.

            EXAMPLES
              kvtcctl profile load model.kvtc.safetensors
              kvtcctl profile load /srv/models/smollm2.kvtc.safetensors
            """)

    @OptionGroup var connection: ConnectionOptions

    @Argument(
        help: ArgumentHelp("The file, or its name in the daemon's directory.", valueName: "file"),
        completion: .file(extensions: ["safetensors"]))
    var file: String

    @Flag(help: "Print one line of JSON.")
    var json = false

    func run() throws {
        // A path is a file here; a plain name is one where there is such a file.
        let isHere = file.contains("/") || access(file, F_OK) == 0
        let document = isHere ? try handOver() : try loadByName()
        let profile = try JSONValue(text: document)
        if let problem = profile["problem"]?.string {
            complain("the daemon keeps the profile in memory only, until it ends: \(problem)")
        }
        if json {
            print(try jsonLine(profile))
            return
        }
        let model = profile["model"]?.string?.escapedForDisplay ?? "unnamed model"
        Terminal.show([
            Terminal.shown("loaded \(file.escapedForDisplay): \(model), profile \(profile["id"]?.string ?? "–")")
        ])
    }

    private func loadByName() throws -> String {
        let explain = { (error: ClientError) -> String? in
            guard case .refused(let reason) = error, reason.code == .unknownProfile else { return nil }
            return "\(currentDirectory()) has no file \(file), and the daemon has none of that name: \(reason.message)"
        }
        return try connection.withClient(explaining: explain) {
            try $0.call(ProfileRequest(action: .load, name: file)).json
        }
    }

    private func handOver() throws -> String {
        let profile: Profile
        do {
            profile = try Profile.open(path: file)
        } catch {
            complain("\(error)")
            throw ExitCode.failure
        }
        let name = String(file.split(separator: "/").last ?? "")
        return try connection.withClient { try $0.storeProfile(profile.file.bytes, name: name) }
    }

    private func currentDirectory() -> String {
        guard let path = getcwd(nil, 0) else { return "." }
        defer { free(path) }
        return String(cString: path)
    }
}
