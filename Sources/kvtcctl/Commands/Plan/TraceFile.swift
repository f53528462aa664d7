import Glibc
import KVTCPlan

/// Reads a trace from a file, or from standard input.
struct TraceFile {
    let path: String
    /// Stop at the first line that is wrong, instead of passing over it.
    let isStrict: Bool

    /// Longer lines are passed over as wrong: a prompt of ``Trace/maximumTokens`` in JSON has less.
    private static let longestLine = 1 << 28

    /// How many lines were wrong.
    private(set) var faults = 0

    init(path: String, isStrict: Bool) { (self.path, self.isStrict) = (path, isStrict) }

    /// Thrown when the trace can't be read, or a strict reader comes upon a line that is wrong; all has been said then.
    struct Unreadable: Error {}

    /// Hands every line to the reader.
    mutating func read(into reader: inout TraceReader, progress: (Double) -> Void) throws(Unreadable) {
        let file = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw failure(String(cString: strerror(errno))) }
        defer { if file != STDIN_FILENO { close(file) } }
        var status = stat()
        let size = fstat(file, &status) == 0 && status.st_mode & S_IFMT == S_IFREG ? Double(status.st_size) : 0
        var (done, line, isTooLong) = (0, [UInt8](), false)
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = Glibc.read(file, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure(String(cString: strerror(errno))) }
            if count == 0 { break }
            var rest = buffer[..<count]
            while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                if !isTooLong { line += rest[..<end] }
                try take(line, isTooLong, &reader)
                (line, isTooLong) = ([], false)
                rest = rest[(end + 1)...]
            }
            if line.count + rest.count > Self.longestLine { (line, isTooLong) = ([], true) }
            if !isTooLong { line += rest }
            done += count
            if size > 0 { progress(min(1, Double(done) / size)) }
        }
        if !line.isEmpty || isTooLong { try take(line, isTooLong, &reader) }
    }

    private mutating func take(_ line: [UInt8], _ isTooLong: Bool, _ reader: inout TraceReader) throws(Unreadable) {
        do throws(TraceError) {
            if isTooLong { throw reader.refuse("longer than \(Self.longestLine) bytes") }
            try reader.read(line)
        } catch {
            faults += 1
            if isStrict || faults <= 10 { complain("\(path): \(error)") }
            if isStrict { throw Unreadable() }
        }
    }

    private func failure(_ reason: String) -> Unreadable {
        complain("\(path): \(reason)")
        return Unreadable()
    }
}
