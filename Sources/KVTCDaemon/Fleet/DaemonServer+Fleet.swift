import KVTCShared
import KVTCStore
import KVTCSystem
import Logging

extension DaemonServer {
    /// The tier that machines share, where the configuration names one. Its servers need not be there.
    static func openFleet(
        _ configuration: DaemonConfiguration, _ store: Store, _ profiles: ProfileRegistry, _ tenants: FleetTenants,
        _ log: Logger
    ) throws -> FleetTier? {
        guard var settings = try configuration.shared.settings() else { return nil }
        // A page, or a piece of a profile, and what goes with it.
        settings.redis.largestValue = max(store.maxPageBytes, 1 << 20) + 4096
        let fleet = try FleetTier(
            settings, tenantName: tenants.name, readBlock: store.show,
            log: { event in log.log(level: event.isTrouble ? .warning : .notice, "\(event)") })
        try fleet.exchangeProfiles {
            profiles.all.compactMap { loaded in loaded.file.map { (name: $0, profile: loaded.profile) } }
        } take: { name, profile in
            if let problem = profiles.store(profile, as: name).problem {
                log.warning(
                    "profile is kept in memory only, until the daemon ends",
                    metadata: ["file": "\(name)", "error": "\(problem)"])
            }
        }
        return fleet
    }
}

extension FleetEvent {
    fileprivate var isTrouble: Bool {
        switch self {
        case .servers(.lost), .writesPaused, .removalsLost, .profileRefused: true
        case .servers, .writesResumed, .profileTaken: false
        }
    }
}

extension DaemonConfiguration.Shared {
    /// What the tier is told of it; nil where nothing is shared.
    func settings() throws -> FleetSettings? {
        guard !url.isEmpty else { return nil }
        var redis = RedisSettings(url: try RedisURL(url))
        func file(_ path: String) -> String? { path.isEmpty ? nil : path }
        redis.password = try file(passwordFile).map(Self.password)
        redis.tls = TLSFiles(
            authorities: file(authorityFile), certificate: file(certificateFile), key: file(keyFile))
        var settings = FleetSettings(redis: redis, secret: try FleetSecret(file: secretFile))
        settings.prefix = prefix
        settings.encrypts = encryption == .aesGCM
        settings.writes = write != .never
        (settings.lookupMilliseconds, settings.pullMilliseconds) = (lookupMilliseconds, pullMilliseconds)
        settings.absentSeconds = absentSeconds
        settings.bytesPerSecond = writeBudget == 0 ? nil : UInt64(writeBudget)
        return settings
    }

    /// The first line of a file.
    static func password(_ path: String) throws(SystemError) -> String {
        let bytes = try SmallFile.bytes(path, atMost: 4096)
        return String(decoding: bytes.prefix { $0 != 0x0A && $0 != 0x0D }, as: UTF8.self)
    }
}
