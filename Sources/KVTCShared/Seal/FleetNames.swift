import struct KVTCStore.StoreKey

/// What a page is called in the cluster, and the key that its value is sealed with. Both follow from tenant and page under the
/// fleet's secret: names say nothing, and a value verifies under its own page only.
struct PageName: Hashable, Sendable {
    /// Bytes of the name.
    var name: [UInt8]
    var key: [UInt8]
}

/// Names what a fleet keeps.
struct FleetNames: Sendable {
    /// What stands before all names.
    let prefix: String
    let secret: FleetSecret
    /// A tenant is a user number here and a name everywhere.
    let tenantName: @Sendable (UInt32) -> String

    /// What all names of a fleet begin with.
    var everything: String { "\(prefix):" }

    /// The names of pages, in order.
    func pages(_ keys: some Sequence<StoreKey>) -> [PageName] {
        var names = KeyedHash(key: secret.key(.pageName))
        var values = KeyedHash(key: secret.key(.pageValue))
        let start = Array("\(prefix):p:".utf8)
        var tenant: (number: UInt32, bytes: [UInt8])?
        return keys.map { key in
            if tenant?.number != key.tenant { tenant = (key.tenant, tenantBytes(key.tenant)) }
            let page = key.page
            return PageName(
                name: Self.hexadecimal(names.digest(tenant!.bytes, page), after: start),
                key: values.digest(tenant!.bytes, page))
        }
    }

    private func tenantBytes(_ tenant: UInt32) -> [UInt8] {
        let name = Array(tenantName(tenant).utf8)
        return withUnsafeBytes(of: UInt32(name.count).littleEndian) { Array($0) } + name
    }

    /// Lower-case digits of the bytes, behind what is there already.
    static func hexadecimal(_ bytes: [UInt8], after start: [UInt8] = []) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: start.count + 2 * bytes.count) { text, count in
            count = start.count + 2 * bytes.count
            _ = text.initialize(from: start)
            func digit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x57 + value }
            for (index, byte) in bytes.enumerated() {
                text.initializeElement(at: start.count + 2 * index, to: digit(byte >> 4))
                text.initializeElement(at: start.count + 2 * index + 1, to: digit(byte & 15))
            }
        }
    }
}
