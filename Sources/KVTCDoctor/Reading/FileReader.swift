import Glibc
import KVTCCodec
import KVTCSystem

extension Scene.Caller {
    static var current: Scene.Caller {
        var caller = Scene.Caller()
        caller.uid = geteuid()
        caller.name = Scene.File.user(caller.uid)
        var groups = [gid_t](repeating: 0, count: 65_536)
        let count = max(0, getgroups(Int32(groups.count), &groups))
        caller.groups = Set(groups[..<Int(count)] + [getegid()])
        if let entry = getpwuid(caller.uid) {
            var known = Int32(groups.count)
            let own = entry.pointee.pw_gid
            if getgrouplist(entry.pointee.pw_name, own, &groups, &known) >= 0 {
                caller.groupsOfUser = Set(groups[..<Int(known)])
            }
        }
        return caller
    }
}

extension Scene.File {
    /// What is at a path, or why that is not to be seen.
    static func at(_ path: String) -> (Scene.File?, problem: String) {
        var info = stat()
        guard lstat(path, &info) == 0 else { return (nil, String(cString: strerror(errno))) }
        var file = Scene.File()
        file.kind = info.st_mode & S_IFMT == S_IFSOCK ? .socket : info.st_mode & S_IFMT == S_IFDIR ? .directory : .other
        (file.mode, file.owner, file.group) = (info.st_mode & 0o7777, info.st_uid, info.st_gid)
        (file.ownerName, file.groupName) = (user(info.st_uid), group(info.st_gid))
        file.changed = info.st_ctim.tv_sec
        return (file, "")
    }

    static func user(_ number: UInt32) -> String {
        getpwuid(number).map { String(cString: $0.pointee.pw_name) } ?? "\(number)"
    }

    private static func group(_ number: UInt32) -> String {
        getgrgid(number).map { String(cString: $0.pointee.gr_name) } ?? "\(number)"
    }
}

extension Scene.Directory {
    init(_ path: String) {
        self.init()
        self.path = path
        (file, problem) = Scene.File.at(path)
        filesystem = Scene.FileSystem(of: path)
        segments = Scene.Segments(in: path)
    }
}

extension Scene.FileSystem {
    /// Of a path, or of what is there of it.
    init?(of path: String) {
        var (info, at) = (statvfs(), path)
        while statvfs(at, &info) != 0 {
            guard errno == ENOENT, let slash = at.lastIndex(of: "/"), at != "/" else { return nil }
            at = slash == at.startIndex ? "/" : String(at[..<slash])
        }
        self.init()
        func bytes(_ blocks: fsblkcnt_t) -> Int {
            Int(clamping: UInt64(blocks).multipliedReportingOverflow(by: UInt64(info.f_frsize)).partialValue)
        }
        (free, size) = (bytes(info.f_bavail), bytes(info.f_blocks))
        freeFiles = info.f_files > 0 ? Int(clamping: info.f_favail) : nil
        isReadOnly = info.f_flag & UInt(ST_RDONLY) != 0
        kind = Scene.FileSystem.kind(of: at, in: SmallFile.lines("/proc/self/mountinfo"))
    }

    /// The kind of the last mount whose point is the path or above it: a line of proc_pid_mountinfo(5) has the point fifth, and the
    /// kind after a dash.
    static func kind(of path: String, in mounts: [Substring]) -> String {
        var best = (length: -1, kind: "")
        let real = realpath(path, nil).map { pointer in
            defer { Glibc.free(pointer) }
            return String(cString: pointer)
        }
        for line in mounts {
            let fields = line.split(separator: " ")
            guard let dash = fields.firstIndex(of: "-"), fields.count > dash + 1, dash > 4 else { continue }
            let point = fields[4] == "/" ? "" : fields[4]
            let path = real ?? path
            if path == point || path.hasPrefix(point + "/"), point.utf8.count >= best.length {
                best = (point.utf8.count, String(fields[dash + 1]))
            }
        }
        return best.kind
    }
}

extension Scene.Segments {
    /// The daemon's own besides segments.
    private static let own: Set = ["lock", "profiles", "clock", "clock.new"]

    init?(in directory: String) {
        guard let stream = opendir(directory) else { return nil }
        defer { closedir(stream) }
        self.init()
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard !name.hasPrefix(".") else { continue }
            guard name.hasPrefix("segment-") else {
                if !Scene.Segments.own.contains(name) { foreign.append(name) }
                continue
            }
            var info = stat()
            guard fstatat(dirfd(stream), name, &info, AT_SYMLINK_NOFOLLOW) == 0 else { continue }
            let stamp = info.st_mtim.tv_sec
            (count, bytes) = (count + 1, bytes + Int(info.st_blocks) * 512)
            oldest = oldest == 0 ? stamp : min(oldest, stamp)
            newest = max(newest, stamp)
        }
        foreign.sort()
    }
}

extension Scene.ProfileFile {
    /// Reads all profiles of a directory, one after another: each is checked as the daemon checks it.
    static func all(in directory: String) -> [Scene.ProfileFile] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        return names.filter { $0.hasSuffix(".safetensors") && !$0.hasPrefix(".") }.sorted().map { name in
            var file = Scene.ProfileFile()
            file.path = "\(directory)/\(name)"
            // What may not be read is no fault of the file.
            guard access(file.path, R_OK) == 0 else { return file }
            do throws(CodecError) { _ = try Profile.open(path: file.path) } catch { file.problem = "\(error)" }
            return file
        }
    }
}
