/// What a configuration that was read anew means for a daemon that runs with another.
package struct ConfigurationChange {
    /// What is in effect from now on.
    package var configuration: DaemonConfiguration
    /// Settings whose values a running daemon takes over.
    package private(set) var taken: [String] = []
    /// Settings that stay as they are until the next start.
    package private(set) var waiting: [String] = []

    package init(from current: DaemonConfiguration, to wanted: DaemonConfiguration) {
        configuration = current
        let named = Set(current.named.keys).union(wanted.named.keys).sorted().compactMap(ConfigurationSetting.named)
        for setting in ConfigurationSetting.all + named where setting.value(in: current) != setting.value(in: wanted) {
            if setting.take(from: wanted, into: &configuration) {
                taken.append(setting.key)
            } else {
                waiting.append(setting.key)
            }
        }
    }

    /// The settings with their values in a configuration, as a file has them.
    static func lines(_ keys: [String], in configuration: DaemonConfiguration) -> String {
        keys.map { key in
            let value = ConfigurationSetting.named(key)?.value(in: configuration).toml ?? ""
            return "\(ConfigurationSetting.spelled(key)) = \(value)"
        }.joined(separator: ", ")
    }
}
