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
                name: start + Self.hexadecimal(names.digest(tenant!.bytes, page)),
                key: values.digest(tenant!.bytes, page))
        }
    }

    private func tenantBytes(_ tenant: UInt32) -> [UInt8] {
        let name = Array(tenantName(tenant).utf8)
        return withUnsafeBytes(of: UInt32(name.count).littleEndian) { Array($0) } + name
    }

    static func hexadecimal(_ bytes: [UInt8]) -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        return bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    }
}
