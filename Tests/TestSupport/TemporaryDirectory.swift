import Foundation

/// A directory of its own for one test, removed when the value goes away.
public final class TemporaryDirectory: Sendable {
    /// The absolute path of the directory, without a trailing slash.
    public let path: String

    /// Makes a fresh, empty directory under the system's temporary directory.
    public init() throws {
        let base = FileManager.default.temporaryDirectory.appendingPathComponent("kvtc-\(UUID().uuidString.prefix(13))")
        try FileManager.default.createDirectory(at: base, withIntermediateDirectories: true)
        path = base.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// The path of an entry inside the directory.
    public func file(_ name: String) -> String { path + "/" + name }
}
