import Glibc
import KVTCCodec
import KVTCProtocol
import Logging
import Synchronization

/// The profiles the daemon has read, by id.
final class ProfileRegistry: Sendable {
    struct Loaded: Sendable {
        var profile: Profile
        var file: String
    }

    /// Where profiles are read from; nil: nowhere.
    let directory: String?
    private let loaded = Mutex<[ProfileID: Loaded]>([:])
    private static let suffix = ".safetensors"

    private let open: Open

    /// Reads a profile file.
    typealias Open = @Sendable (_ path: String) throws(CodecError) -> Profile

    init(directory: String?, open: @escaping Open) {
        self.directory = directory
        self.open = open
    }

    /// Reads every profile in the directory. A file that is no good is logged and left out: the others still serve.
    func scan(log: Logger) {
        guard let directory, let stream = opendir(directory) else { return }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasSuffix(ProfileRegistry.suffix) { names.append(name) }
        }
        for name in names.sorted() {
            do throws(WireError) {
                let profile = try load(name)
                log.info("profile loaded", metadata: ["file": "\(name)", "id": "\(profile.id)"])
            } catch {
                log.warning("profile left out", metadata: ["file": "\(name)", "error": "\(error)"])
            }
        }
    }

    /// Reads one profile by its file name.
    func load(_ name: String) throws(WireError) -> Profile {
        // A name, never a path: the directory is all that clients may point at.
        guard !name.isEmpty, !name.contains("/"), !name.contains("\0"), name.first != "." else {
            throw WireError(.invalidField, field: "name", "not a file name in the profile directory")
        }
        guard let directory else { throw WireError(.unknownProfile, field: "name", "there is no profile directory") }
        let profile: Profile
        do throws(CodecError) { profile = try open("\(directory)/\(name)") } catch {
            throw WireError(.unknownProfile, field: "name", "\(name): \(error)")
        }
        loaded.withLock { $0[profile.id] = Loaded(profile: profile, file: name) }
        return profile
    }

    func find(_ id: [UInt8]) -> Profile? {
        ProfileID(bytes: id).flatMap { id in loaded.withLock { $0[id]?.profile } }
    }

    /// By file name.
    var all: [Loaded] { loaded.withLock { $0.values.sorted { $0.file < $1.file } } }
}
