/// The lock on the directory and, for versions that know only that one, on a file in it; closing them gives it back.
final class DirectoryLock: Sendable {
    private let path: String
    private let device: any StorageDevice
    /// Nil where the file system locks no directories.
    private let directory: Int32?
    /// Nil where the file can't be made.
    private let file: Int32?

    /// - Parameter makesFile: make the lock file when it is missing.
    init(_ path: String, _ device: any StorageDevice, makesFile: Bool = true) throws(DeviceError) {
        self.path = path
        self.device = device
        var failure: DeviceError?
        func attempt(_ lock: () throws(DeviceError) -> Int32) throws(DeviceError) -> Int32? {
            do throws(DeviceError) { return try lock() } catch {
                if error.code == DeviceError.wouldBlock { throw error }
                failure = error
                return nil
            }
        }
        let directory = try attempt { () throws(DeviceError) in try device.lockDirectory(path) }
        do throws(DeviceError) {
            file =
                try makesFile ? attempt { () throws(DeviceError) in try device.lock(path + "/" + Self.fileName) } : nil
        } catch {
            if let directory { device.close(directory) }
            throw error
        }
        self.directory = directory
        // Either will do.
        if directory == nil, file == nil, let failure { throw failure }
    }

    static let fileName = "lock"

    deinit { for file in [directory, file] { if let file { device.close(file) } } }

    /// Whether both are where they were locked.
    var isWhole: Bool {
        get throws(DeviceError) {
            if let directory, try !device.isNamed(directory, path) { return false }
            guard let file else { return directory != nil }
            return try device.isNamed(file, path + "/" + Self.fileName)
        }
    }

    /// Whether the directory is the one that was locked.
    var isHere: Bool {
        get throws(DeviceError) {
            if let directory { return try device.isNamed(directory, path) }
            return try file.map { file throws(DeviceError) in try device.isNamed(file, path + "/" + Self.fileName) }
                ?? false
        }
    }
}
