/// Settings about users: who shares pages, who sees everybody's, whose socket is whose.
extension ConfigurationSetting {
    static func users(_ key: String) -> ConfigurationSetting {
        ConfigurationSetting(listOfUsers: key, adopt: copy(\.tenants.administrators)) { value, configuration in
            var users: Set<UInt32> = []
            let refusals = refusals(value) { user in
                users.insert(user)
                return nil
            }
            if refusals.isEmpty { configuration.tenants.administrators = users }
            return refusals
        } show: {
            .list($0.tenants.administrators.sorted().map { .integer(Int($0)) })
        }
    }

    static func group(_ key: String) -> ConfigurationSetting {
        let allowed = "the name of a group or its number as text, or \"\" for none"
        return ConfigurationSetting(key, allowed, adopt: copy(\.tenants.administratorGroup)) { value, configuration in
            guard case .text(let name) = value else { return "is \(value.kind)" }
            return reason { () throws(ConfigurationError) in
                configuration.tenants.administratorGroup = name.isEmpty ? nil : try Tenants.group(name, key: key)
            }
        } show: {
            .text($0.tenants.administratorGroup.map { "\($0)" } ?? "")
        }
    }

    static func tenant(_ key: String) -> ConfigurationSetting {
        ConfigurationSetting(listOfUsers: key, adopt: copy(\.tenants.shared)) { value, configuration in
            var (tenants, first) = (configuration.tenants, UInt32?.none)
            // The first one's number names them.
            var refusals = refusals(value) { user in
                first = first ?? user
                let known = tenants.shared.updateValue(first ?? user, forKey: user)
                return known == nil ? nil : "user \(user) is listed twice"
            }
            if refusals.isEmpty, first == nil { refusals = [Refusal(reason: "is empty: at least one user is needed")] }
            if refusals.isEmpty { configuration.tenants = tenants }
            return refusals
        } show: {
            $0.named[key] ?? .list([])
        }
    }

    static func container(_ key: String) -> ConfigurationSetting {
        let name = String(key.dropFirst("containers.".count))
        return ConfigurationSetting(key, "the absolute path of a socket as text") { value, configuration in
            guard case .text(let path) = value else { return "is \(value.kind)" }
            return reason { () throws(ConfigurationError) in
                try configuration.addContainer(name, socket: path, key: key)
            }
        } show: {
            .text($0.containers[name] ?? "")
        }
    }

    private static func reason(_ body: () throws(ConfigurationError) -> Void) -> String? {
        do throws(ConfigurationError) { try body() } catch { return error.message }
        return nil
    }

    /// What is wrong with a list of users; `take` gets each one's number, and says what is wrong with that.
    private static func refusals(_ value: ConfigurationValue, take: (UInt32) -> String?) -> [Refusal] {
        guard case .list(let items) = value else { return [Refusal(reason: "is \(value.kind)")] }
        return items.enumerated().compactMap { index, item in
            let number: UInt32?
            switch item {
            case .text(let name): number = Tenants.user(name)
            case .integer(let user): number = UInt32(exactly: user)
            default: return Refusal(reason: "\(item.toml) is no user", element: index)
            }
            guard let number else { return Refusal(reason: "there is no user \(item.toml)", element: index) }
            return take(number).map { Refusal(reason: $0, element: index) }
        }
    }
}
