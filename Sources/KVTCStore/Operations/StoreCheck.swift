/// What a look at the directory of a store finds. Nothing in it is changed.
public struct StoreCheck: Sendable {
    /// How a file is.
    public enum Verdict: String, Sendable {
        /// Complete and intact.
        case clean
        /// Intact, but not complete: the daemon was killed while it wrote. What is torn at its end was never made durable.
        case torn
        /// Some of it is not what was written; the pages there are lost.
        case damaged
        /// Not even its header is intact. A start sets it aside.
        case corrupt
        /// The device fails to read some of it.
        case unreadable
        /// Set aside as corrupt by an earlier start.
        case setAside = "set aside"
        /// Written by a newer version; a start refuses the directory.
        case newer
    }

    /// One file.
    public struct File: Sendable {
        /// Its name in the directory.
        public var name: String
        /// Its size.
        public var bytes: Int
        /// How it is.
        public var verdict: Verdict
        /// Intact records of pages, those included that later records override.
        public var pageRecords = 0
        /// Bytes that are no part of an intact record, but for the end.
        public var damagedBytes = 0
        /// Bytes behind the last intact record.
        public var tornBytes = 0
        /// Whether it ends as a complete segment does.
        public var isSealed = false
    }

    /// The files, oldest first.
    public var files: [File] = []
    /// Pages that a start would find.
    public var pages = 0
    /// Bytes of these pages.
    public var pageBytes = 0

    /// Whether anything is there that should not be: a start would lose pages, or not start.
    public var isDamaged: Bool { files.contains { ![.clean, .torn].contains($0.verdict) } }

    /// Reads every byte of a directory that no daemon uses; one that is no store's is an error. `progress` is told the bytes read and those there are.
    public static func run(
        directory: String, progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
    ) throws(StoreError) -> StoreCheck {
        try run(directory: directory, device: LinuxStorageDevice(isReadOnly: true), progress: progress)
    }

    package static func run(
        directory: String, device: any StorageDevice, progress: (Int, Int) -> Void = { _, _ in }
    ) throws(StoreError) -> StoreCheck {
        let names: [String]
        // Held until the end, so that no daemon starts meanwhile.
        var lock: DirectoryLock?
        do throws(DeviceError) {
            names = try device.list(directory).sorted()
        } catch { throw .io(error) }
        do throws(DeviceError) {
            lock = try DirectoryLock(directory, device, makesFile: names.contains(DirectoryLock.fileName))
        } catch {
            // Where nothing can be locked, a daemon has locked nothing.
            if error.code == DeviceError.wouldBlock { throw .locked(directory) }
        }
        defer { withExtendedLifetime(lock) {} }
        let found = names.filter { SegmentName.id($0) != nil || SegmentName.setAsideID($0) != nil }
        // Every start leaves a lock file; calling any other directory good would be a comfort that nothing backs.
        guard names.contains(DirectoryLock.fileName) || !found.isEmpty else {
            throw .invalid("\(directory) is not the directory of a disk tier: it has no segments and no lock file")
        }
        var sizes: [String: Int] = [:]
        for name in found { sizes[name] = size(directory + "/" + name, device) }
        let total = sizes.values.reduce(0, +)
        var (check, index, done) = (StoreCheck(), StoreIndex(expandedLimit: 0), 0)
        for name in found {
            progress(done, total)
            let path = directory + "/" + name
            if SegmentName.setAsideID(name) != nil {
                check.files.append(File(name: name, bytes: sizes[name]!, verdict: .setAside))
            } else {
                check.files.append(Self.check(name, path, sizes[name]!, device, &index))
            }
            done += sizes[name]!
        }
        progress(total, total)
        (check.pages, check.pageBytes) = index.totals
        return check
    }

    private static func size(_ path: String, _ device: any StorageDevice) -> Int {
        guard let file = try? device.open(path, create: false) else { return 0 }
        defer { device.close(file) }
        return (try? device.size(file, path)) ?? 0
    }

    private static func check(
        _ name: String, _ path: String, _ size: Int, _ device: any StorageDevice, _ index: inout StoreIndex
    ) -> File {
        var result = File(name: name, bytes: size, verdict: .unreadable)
        guard let file = try? device.open(path, create: false) else { return result }
        let buffer = RecordBuffer(bytes: SegmentHeader.bytes)
        guard let count = try? device.readAll(file, path, buffer.memory, at: 0) else {
            device.close(file)
            return result
        }
        switch SegmentHeader.parse(UnsafeRawBufferPointer(rebasing: buffer.memory[..<count])) {
        case .newer:
            device.close(file)
            result.verdict = .newer
        case .valid(let header) where header.id == SegmentName.id(name):
            let segment = Segment(
                id: header.id, path: path, salt: header.salt, run: header.run, file: file, device: device)
            var scanner = SegmentScanner(segment: segment, size: size, verifiesAll: true)
            scanner.scan()
            let report = SegmentReport(scanner, size: size)
            (result.pageRecords, result.isSealed) = (report.pages, report.isSealed)
            (result.damagedBytes, result.tornBytes) = (report.damagedBytes, report.tornBytes)
            result.verdict = verdict(report)
            for record in scanner.records { index.replay(record, in: segment) }
        case .valid, .bad:
            device.close(file)
            // A segment that never got its header is nothing that could be lost.
            result.verdict = size < SegmentHeader.bytes ? .torn : .corrupt
        }
        return result
    }

    private static func verdict(_ report: SegmentReport) -> Verdict {
        if report.readErrors > 0 { return .unreadable }
        // What a seal confirms is whole. The index of a segment is derived: without it a start takes longer.
        if report.damagedBytes > 0 || (report.isSealed && report.tornBytes > 0) { return .damaged }
        return report.isSealed ? .clean : .torn
    }
}

extension StoreIndex {
    /// All pages and their bytes.
    fileprivate var totals: (Int, Int) {
        tenants.values.reduce((0, 0)) { ($0.0 + $1.usage.pages, $0.1 + Int($1.usage.storedBytes)) }
    }
}
