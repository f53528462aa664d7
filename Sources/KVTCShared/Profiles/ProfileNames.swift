import KVTCCodec

/// What profiles are called in the cluster, and the keys of their values.
struct ProfileNames: Sendable {
    private let prefix: [UInt8]
    private let nameKey: [UInt8]
    private let valueKey: [UInt8]

    init(_ settings: FleetSettings) {
        prefix = Array("\(settings.prefix):f:".utf8)
        (nameKey, valueKey) = (settings.secret.key(.profileName), settings.secret.key(.profileValue))
    }

    /// Of the hash with an entry for each profile.
    var index: [UInt8] { name(Array("index".utf8)) }

    /// Of a profile's entry there.
    func field(_ id: ProfileID) -> [UInt8] {
        FleetNames.hexadecimal(KeyedHash.digest(key: nameKey, Array("entry".utf8) + id.bytes))
    }

    /// What the entry with this name is sealed with.
    func entryKey(field: [UInt8]) -> [UInt8] { KeyedHash.digest(key: valueKey, Array("entry".utf8) + field) }

    /// A part of a profile's file.
    func chunk(_ id: ProfileID, _ number: Int) -> PageName {
        let number = withUnsafeBytes(of: UInt32(number).littleEndian) { Array($0) }
        let input = Array("chunk".utf8) + id.bytes + number
        return PageName(name: name(input), key: KeyedHash.digest(key: valueKey, input))
    }

    private func name(_ input: [UInt8]) -> [UInt8] {
        prefix + FleetNames.hexadecimal(KeyedHash.digest(key: nameKey, input))
    }
}
