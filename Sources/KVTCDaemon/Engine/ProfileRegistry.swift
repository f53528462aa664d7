import Glibc
import KVTCCodec
import KVTCProtocol
import KVTCSystem
import Logging
import Synchronization

/// The profiles that sessions can use, each a copy in memory of what was read.
///
/// A name stands for the profile that was loaded last under it, and that one stays whatever becomes of the file. One that
/// another took the name of, or whose file was gone when the directory was read again, stays usable by its id as long as
/// a session or a coder holds it, and goes with the last of them.
final class ProfileRegistry: Sendable {
    struct Loaded: Sendable {
        var profile: Profile
        /// The name it was loaded under; nil where that stands for another by now, or for none.
        var file: String?
        /// False for one that could not be written to the directory, and ends with the daemon.
        var isStored = true
    }

    private struct Former { weak var profile: Profile? }

    private struct State {
        var named: [String: Loaded] = [:]
        var former: [Former] = []
        /// Of the profiles that were asked for as files.
        var files: [ProfileID: SealedMemory] = [:]

        func profile(_ id: ProfileID) -> Profile? {
            named.values.first { $0.profile.id == id }?.profile ?? former.first { $0.profile?.id == id }?.profile
        }

        mutating func letGo(_ name: String) {
            guard let profile = named.removeValue(forKey: name)?.profile else { return }
            former.removeAll { $0.profile == nil || $0.profile?.id == profile.id }
            let hasOtherName = named.values.contains { $0.profile.id == profile.id }
            if !hasOtherName { former.append(Former(profile: profile)) }
        }
    }

    /// Where profiles are read from; nil: nowhere.
    let directory: String?
    private let state = Mutex(State())
    /// Held while a file is read, so that many requests hold one copy of it at a time.
    private let reading = Mutex(())
    /// Held while a profile is copied, so that there is one copy to share.
    private let sharing = Mutex(())
    static let suffix = ".safetensors"

    private let open: Open

    /// Reads a profile file.
    typealias Open = @Sendable (_ path: String) throws(CodecError) -> Profile

    init(directory: String?, open: @escaping Open) {
        self.directory = directory
        self.open = open
    }

    /// Reads every profile in the directory, and lets go of those whose files are gone. A file that is no good is logged and
    /// left out, and what was loaded under its name before stays.
    func scan(log: Logger) {
        // One that is handed in while the directory is read is in neither, and stays.
        let known = state.withLock { Set($0.named.keys) }
        guard let directory, let names = ProfileRegistry.names(in: directory) else { return }
        for name in names.sorted() {
            do throws(WireError) {
                let before = named(name)
                let profile = try load(name).profile
                guard profile.id != before?.id else { continue }
                log.info("profile loaded", metadata: ["file": "\(name)", "id": "\(profile.id)"])
            } catch {
                log.warning("profile left out", metadata: ["file": "\(name)", "error": .stringConvertible(error)])
            }
        }
        let gone = state.withLock { state in
            let gone = state.named.filter { $0.value.isStored && known.contains($0.key) && !names.contains($0.key) }
                .keys
            for name in gone { state.letGo(name) }
            return gone.sorted()
        }
        for name in gone { log.info("profile let go, its file is gone", metadata: ["file": "\(name)"]) }
    }

    /// File names of profiles; nil where the directory can't be read now.
    private static func names(in directory: String) -> Set<String>? {
        guard let stream = opendir(directory) else { return nil }
        defer { closedir(stream) }
        var names: Set<String> = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasSuffix(suffix), name.first != "." { names.insert(name) }
        }
        return names
    }

    /// Reads one profile by its file name.
    func load(_ name: String) throws(WireError) -> Loaded {
        try ProfileRegistry.check(name)
        guard let directory else { throw WireError(.unknownProfile, field: "name", "there is no profile directory") }
        // Kept before the next one reads or writes: the later content has the name.
        let read = reading.withLock { _ in
            Result { () throws(CodecError) in keep(try open("\(directory)/\(name)"), as: name, isStored: true) }
        }
        do throws(CodecError) {
            return try read.get()
        } catch {
            // Where the directory is on the host is nothing that its users need to know.
            let reason = "\(error)".replacing("\(directory)/\(name)", with: name)
            throw WireError(.unknownProfile, field: "name", reason)
        }
    }

    /// Takes over a profile that a client handed in, and keeps it in the directory where that is possible; says why not
    /// where it is not.
    /// - Precondition: the name has been checked.
    func store(_ profile: Profile, as name: String) -> (loaded: Loaded, problem: String?) {
        reading.withLock { _ in
            let problem = directory.map { save(profile, as: name, in: $0) } ?? "there is no profile directory"
            return (keep(profile, as: name, isStored: problem == nil), problem)
        }
    }

    private func save(_ profile: Profile, as name: String, in directory: String) -> String? {
        do throws(SystemError) {
            try DurableFile.write(profile.file.bytes, named: name, in: directory)
            return nil
        } catch { return "\(error)" }
    }

    /// Gives the name to the profile; to the one there is with the same content, so that there is one copy.
    private func keep(_ profile: Profile, as name: String, isStored: Bool) -> Loaded {
        state.withLock { state in
            let loaded = Loaded(profile: state.profile(profile.id) ?? profile, file: name, isStored: isStored)
            if state.named[name]?.profile.id != profile.id { state.letGo(name) }
            state.named[name] = loaded
            state.former.removeAll { $0.profile == nil || $0.profile?.id == profile.id }
            return loaded
        }
    }

    private func named(_ name: String) -> Profile? { state.withLock { $0.named[name]?.profile } }

    // A name, never a path: the directory is all that clients may point at.
    static func check(_ name: String) throws(WireError) {
        guard !name.isEmpty, !name.contains("/"), !name.contains("\0"), name.first != ".", name.utf8.count <= 255 else {
            throw WireError(.invalidField, field: "name", "not a file name in the profile directory")
        }
    }

    func find(_ id: [UInt8]) -> Profile? {
        ProfileID(bytes: id).flatMap { id in state.withLock { $0.profile(id) } }
    }

    /// The profile's file in memory that all who ask share. It is a copy, which the processor's own coders can do without: large
    /// pages are not to be had for memory that is shared. It goes when another is asked for and the profile is gone.
    func file(of profile: Profile) throws(SystemError) -> SealedMemory {
        try sharing.withLock { (_) throws(SystemError) in
            let known = state.withLock { state in
                state.files = state.files.filter { $0.key == profile.id || state.profile($0.key) != nil }
                return state.files[profile.id]
            }
            if let known { return known }
            let file = try SealedMemory(copying: profile.file.bytes, name: "kvtc-profile")
            state.withLock { $0.files[profile.id] = file }
            return file
        }
    }

    /// Those that have a name, by it.
    var all: [Loaded] { state.withLock { $0.named.sorted { $0.key < $1.key }.map(\.value) } }

    /// Those without a name that sessions still use.
    var former: [Loaded] {
        state.withLock { state in state.former.compactMap(\.profile).map { Loaded(profile: $0, file: nil) } }
    }
}
