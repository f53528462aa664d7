import ArgumentParser

struct ProfileCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "List, load and look at profiles, which calibration makes.",
        subcommands: [
            ProfileList.self,
            ProfileLoad.self,
            ProfileShow.self,
        ])
}
