import KVTCCodec
import KVTCProtocol
import KVTCSystem

extension Engine {
    func profile(_ request: ProfileRequest, _ caller: Caller) throws(WireError) -> JSONReply {
        switch request.action {
        case .list:
            guard request.name.isEmpty else { throw WireError(.invalidField, field: "name", "must be empty to list") }
            return JSONReply(profiles.all.map { StatusReport.Profile($0) })
        case .load:
            do throws(WireError) {
                let loaded = try profiles.load(request.name)
                audit("profile loaded", caller, ["file": "\(request.name)", "id": "\(loaded.profile.id)"])
                return JSONReply(StatusReport.Profile(loaded))
            } catch {
                guard error.code == .unknownProfile, caller.isAdministrator, let directory = profiles.directory else {
                    throw error
                }
                throw WireError(error.code, field: error.field, "\(error.message) (in \(directory))")
            }
        }
    }

    /// The profile of a session that the caller may use.
    func profile(of id: UInt32, _ caller: Caller) throws(WireError) -> Profile {
        guard let profile = try session(id, caller).context.codec.profile else {
            throw WireError(.unknownProfile, field: "session", "session \(id) has no profile")
        }
        return profile
    }

    /// The file of a profile, to be sent along.
    func file(of profile: Profile) throws(WireError) -> SealedMemory {
        do throws(SystemError) { return try profiles.file(of: profile) } catch {
            log.warning(
                "no memory for a profile's file", metadata: ["id": "\(profile.id)", "error": .stringConvertible(error)])
            throw WireError(.limitExceeded, field: "session", "there is no memory for the profile's file")
        }
    }

    /// Takes over the profile file that lies in an arena. It is copied before it is looked at, since its owner may go on
    /// writing there.
    func storeProfile(
        _ request: StoreProfileRequest, arena: Arena?, _ caller: Caller
    ) throws(WireError) -> JSONReply {
        guard caller.isAdministrator else {
            throw WireError(
                .forbidden, field: "name",
                "only administrators may hand in a profile; one in the daemon's directory is loaded by its name alone")
        }
        guard let arena else {
            throw WireError(.invalidField, field: "arena", "a profile travels in an arena, not in the request")
        }
        guard arena.contains(offset: request.offset, length: request.length), request.length > 0 else {
            throw WireError(
                .arenaBounds, field: "length",
                "\(request.length) bytes from \(request.offset) on do not lie in the arena's \(arena.byteCount)")
        }
        try ProfileRegistry.check(request.name)
        guard request.name.hasSuffix(ProfileRegistry.suffix) else {
            throw WireError(.invalidField, field: "name", "\(request.name) does not end in \(ProfileRegistry.suffix)")
        }
        let profile: Profile
        do throws(CodecError) {
            profile = try Profile(
                file: PrivateBytes(count: Int(request.length)) { memory in
                    _ = arena.withWritable(offset: request.offset, length: request.length) {
                        memory.copyMemory(from: UnsafeRawBufferPointer($0))
                    }
                })
        } catch { throw WireError(.unknownProfile, field: "name", "\(request.name) is not a usable profile: \(error)") }
        let (loaded, problem) = profiles.store(profile, as: request.name)
        audit("profile handed in", caller, ["file": "\(request.name)", "id": "\(profile.id)"])
        if let problem {
            log.warning(
                "profile is kept in memory only, until the daemon ends",
                metadata: ["file": "\(request.name)", "error": "\(problem)"])
        }
        return JSONReply(StatusReport.Profile(loaded, problem: problem))
    }
}
