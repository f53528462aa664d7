import CCrypto
import FoundationEssentials
import Glibc
import KVTCModel

/// What calibration learned about one model: `ProfileFormat.md` lists the file's tensors.
public final class Profile: Sendable {
    /// SHA-256 of the file.
    public let id: ProfileID
    /// The tensors it was calibrated for.
    public let geometry: Geometry
    /// The description stored in the file.
    public let metadata: ProfileMetadata
    /// The model's name, for people.
    public var model: String { metadata.model }

    /// Standard deviation of each basis's components on held-out tokens, descending.
    public var spectra: [[Double]] { bases.map { $0.levels.map { exp2(Double($0) / 64) } } }

    /// Bytes of the bases in memory, and of as many components as 32-bit floats.
    package var packedBytes: Int { bases.reduce(0) { $0 + $1.packedBytes } }
    package var float32Bytes: Int { bases.reduce(0) { $0 + 4 * $1.rank * $1.columns.width } }

    // What makes rows of a `DecodedPage`'s codes, on whatever device: `InverseTransform.md` says how. All are constant.

    /// Subtracted from each row before weighting: [rowElements].
    let mean: [Float]
    /// Square root of what a squared error of the element costs: [rowElements].
    let weight: [Float]
    let inverseWeight: [Float]
    /// From weighted, centred rows to where an error costs its squared norm, and back; nil where that is the same.
    let root, inverseRoot: HeadMatrices?
    let bases: [Basis]
    let tables: EntropyTables
    let rotation: Rotation

    /// The largest file that is read, far above what the widest models need.
    public static let maximumBytes = 16 << 30

    /// The file as it was read.
    package let file: PrivateBytes
    /// Memory that the profile takes, nearly all of it bases.
    public var byteCount: Int { file.bytes.count }

    /// Reads a profile file into memory of its own: what becomes of the file afterwards changes nothing.
    /// - Throws: `invalid` where the file can't be read or holds no usable profile, saying why.
    public static func open(path: String) throws(CodecError) -> Profile {
        let reason: CodecError
        do throws(CodecError) { return try Profile(file: contents(of: InputFile(path: path))) } catch { reason = error }
        guard case .invalid(field: "file", let what) = reason else {
            throw .invalid(field: "profile", "\(path) is not a usable profile: \(reason)")
        }
        throw .invalid(field: "profile", "\(path): \(what)")
    }

    /// Reads a profile from the bytes of its file.
    public convenience init(bytes: [UInt8]) throws(CodecError) {
        let file = bytes.withUnsafeBytes { source in
            Result { () throws(CodecError) in try PrivateBytes(copying: source) }
        }
        try self.init(file: file.get())
    }

    /// Checks the bytes of a profile file, which the profile keeps.
    package convenience init(file: PrivateBytes) throws(CodecError) { try self.init(parts: Parts(file)) }

    /// All of a file whose header is that of a profile of its size: a sparse or endless one is refused by its first bytes.
    private static func contents(of file: InputFile) throws(CodecError) -> PrivateBytes {
        let header = try Safetensors(header: file)
        guard header.end == file.byteCount else {
            throw .corrupt("\(file.byteCount) bytes, where its tensors end at \(header.end)")
        }
        guard file.byteCount <= maximumBytes else {
            throw .corrupt("\(file.byteCount) bytes are more than \(maximumBytes)")
        }
        let copy = try PrivateBytes(count: file.byteCount) { (target) throws(CodecError) in
            try file.read(at: 0, into: target)
        }
        // The checksum tells, but the earliest profiles have none.
        try file.checkUnchanged()
        return copy
    }

    /// What is in the file, checked one by one.
    struct Parts {
        var id: ProfileID
        var metadata: ProfileMetadata
        var geometry: Geometry
        var mean: [Float]
        var weight: [Float]
        var bases: [Basis]
        var frequencies: [UInt16]
        var roots: [HeadMatrices] = []

        var memory: PrivateBytes

        init(_ memory: PrivateBytes) throws(CodecError) {
            self.memory = memory
            let file = memory.bytes
            let tensors = try Safetensors(file)
            guard let json = tensors.metadata["kvtc"] else { throw .corrupt("no \"kvtc\" metadata: not a profile") }
            do { metadata = try JSONDecoder().decode(ProfileMetadata.self, from: Data(json.utf8)) } catch {
                throw .corrupt("profile metadata: \(error)")
            }
            guard (1...4).contains(metadata.format) else {
                throw .unsupported("profile format \(metadata.format); this release reads formats 1 to 4")
            }
            // Profiles made before there was a checksum have none.
            guard tensors.metadata[ProfileSeal.key] == nil || ProfileSeal.isIntact(file, tensors.metadata) else {
                throw .corrupt("the profile's checksum does not match its content; calibrate or copy it again")
            }
            var tables: [[Float]] = []
            while let rope = tensors.tensors["rope.\(tables.count)"] {
                guard rope.dtype == "F32" else { throw .corrupt("tensor rope.\(tables.count) is \(rope.dtype)") }
                tables.append(array(file, rope.range, of: Float.self))
            }
            geometry = try metadata.geometry(ropeTables: tables)
            let width = geometry.rowElements
            mean = array(file, try tensors.tensor("mean", "F32", [width]), of: Float.self)
            weight = array(file, try tensors.tensor("weight", "F32", [width]), of: Float.self)
            guard mean.allSatisfy(\.isFinite), weight.allSatisfy({ $0.isFinite && $0 > 0 && (1 / $0).isFinite }) else {
                throw .corrupt("mean or weight holds zeros, NaN or infinities")
            }
            if metadata.format == 3 || (metadata.format == 4 && tensors.tensors["root"] != nil) {
                let count = HeadMatrices.triangleCount(for: geometry)
                for name in ["root", "inverse_root"] {
                    let halves = array(file, try tensors.tensor(name, "F16", [count]), of: UInt16.self)
                    guard halves.allSatisfy({ $0 & 0x7c00 != 0x7c00 }) else {
                        throw .corrupt("\(name) holds NaN or infinities")
                    }
                    roots.append(HeadMatrices(geometry: geometry, triangles: halves))
                }
            }
            bases = []
            guard metadata.energy.isFinite, metadata.energy > 0,
                metadata.peaks.map({ $0.count == 2 && $0.allSatisfy { $0.isFinite && $0 >= 0 } }) ?? true
            else { throw .corrupt("profile energy or peaks are no numbers that rows have") }
            let columns = try metadata.columns(of: geometry)
            for (index, basis) in metadata.bases.enumerated() {
                guard (1...columns[index].width).contains(basis.rank),
                    (basis.rank...2 * basis.rank).contains(basis.digits)
                else { throw .corrupt("basis \(index) of rank \(basis.rank)") }
                let digits: Basis.Digits
                if metadata.format == 1 {
                    let range = try tensors.tensor(
                        "basis.\(index).digits", "I8", [basis.digits, columns[index].width])
                    digits = .rows(UnsafeRawBufferPointer(rebasing: file[range]))
                } else {
                    let name = "basis.\(index).packed"
                    guard let tensor = tensors.tensors[name], tensor.dtype == "U8" else {
                        throw .corrupt("no U8 tensor \(name)")
                    }
                    digits = .packed(UnsafeRawBufferPointer(rebasing: file[tensor.range]), owner: memory)
                }
                bases.append(
                    try Basis(
                        columns: columns[index], rank: basis.rank,
                        levels: array(
                            file, try tensors.tensor("basis.\(index).level", "I16", [basis.rank]), of: Int16.self),
                        digits: digits,
                        components: array(
                            file, try tensors.tensor("basis.\(index).component", "I32", [basis.digits]), of: Int32.self),
                        exponents: array(
                            file, try tensors.tensor("basis.\(index).exponent", "I8", [basis.digits]), of: Int8.self)))
            }
            frequencies = array(
                file, try tensors.tensor("entropy.frequencies", "U16", [EntropyTables.classes, EntropyTables.symbols]),
                of: UInt16.self)
            var digest = [UInt8](repeating: 0, count: 32)
            SHA256(file.bindMemory(to: UInt8.self).baseAddress, file.count, &digest)
            id = ProfileID(bytes: digest)!
        }
    }

    private init(parts: Parts) throws(CodecError) {
        file = parts.memory
        id = parts.id
        metadata = parts.metadata
        geometry = parts.geometry
        mean = parts.mean
        weight = parts.weight
        inverseWeight = parts.weight.map { 1 / $0 }
        root = parts.roots.first
        inverseRoot = parts.roots.last
        bases = parts.bases
        tables = try EntropyTables(frequencies: parts.frequencies)
        rotation = Rotation(geometry: parts.geometry)
    }
}
