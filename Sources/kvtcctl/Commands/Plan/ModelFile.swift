import FoundationEssentials
import KVTCCodec
import KVTCModel
import KVTCPlan

/// A file that says how a model's cache is laid out; its first bytes tell which kind it is.
struct ModelFile {
    private let path: String
    private let file: InputFile

    /// Far above what a model's configuration takes.
    private static let largestConfiguration = 16 << 20

    /// - Parameter path: of the file, or of a directory with a `config.json`.
    init(_ path: String) throws(CodecError) {
        let inside = path + "/config.json"
        self.path = FileManager.default.fileExists(atPath: inside) ? inside : path
        var isDirectory = false
        if FileManager.default.fileExists(atPath: self.path, isDirectory: &isDirectory), isDirectory {
            throw .invalid(field: "model", "a directory without a config.json: name its GGUF file, or a profile")
        }
        file = try InputFile(path: self.path)
    }

    func shape(_ element: Element?) throws -> CacheShape {
        let first = try file.bytes(0..<min(9, file.byteCount))
        if CacheShape.isGGUF(first) { return try CacheShape(gguf: reader, element: element ?? .f16) }
        // A safetensors file has the length of its JSON before it.
        if first.count == 9, first[8] == UInt8(ascii: "{") {
            return try shape(of: Profile.open(path: path), element ?? .f16)
        }
        let isText = first.first { !" \t\r\n".utf8.contains($0) } == UInt8(ascii: "{")
        guard isText, file.byteCount <= Self.largestConfiguration else {
            throw ModelError(field: "model", "is no GGUF file, no profile and no config.json")
        }
        return try CacheShape(configuration: file.bytes(0..<file.byteCount), element: element)
    }

    private var reader: GGUFReader {
        GGUFReader(byteCount: file.byteCount) { (range) throws(ModelError) in
            do throws(CodecError) { return try file.bytes(range) } catch {
                throw ModelError(field: "gguf", "\(error)")
            }
        }
    }

    private func shape(of profile: Profile, _ element: Element) throws -> CacheShape {
        if let rank = profile.metadata.rank {
            throw ModelError(field: "profile", "it is of \(rank), a part of the model: give the model's own file")
        }
        return CacheShape(tokenBytes: profile.geometry.rowElements * element.bytes)
    }
}
