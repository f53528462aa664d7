import ArgumentParser

struct ProfileCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "List, load and look at profiles, which calibration makes.",
        discussion: """
            EXAMPLES
              kvtcctl profile list
              kvtcctl profile load model.kvtc.safetensors
              kvtcctl profile show model.kvtc.safetensors
            """,
        subcommands: [
            ProfileList.self,
            ProfileLoad.self,
            ProfileShow.self,
        ])
}
