import ArgumentParser
import KVTCProtocol

struct ProfileLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Load a file of the daemon's profile directory.",
        discussion: """
            The file must lie in the daemon's profile directory ('profile_directory' in 'kvtcctl status --json') and is \
            named without its path. Loading a profile again is harmless.

            EXAMPLES
              kvtcctl profile load smollm2.kvtc.safetensors
            """)

    @OptionGroup var connection: ConnectionOptions

    @Argument(help: ArgumentHelp("The file's name, without a path.", valueName: "file"))
    var name: String

    @Flag(help: "Print the daemon's JSON document, one line.")
    var json = false

    func validate() throws {
        if name.contains("/") {
            throw ValidationError("Name the file without its path: the daemon reads its own profile directory only.")
        }
    }

    func run() throws {
        let document = try connection.withClient { try $0.call(ProfileRequest(action: .load, name: name)).json }
        if json {
            print(document)
            return
        }
        let profile = try JSONValue(text: document)
        print("loaded \(name): \(profile["model"]?.string ?? "unnamed model"), profile \(profile["id"]?.string ?? "–")")
    }
}
