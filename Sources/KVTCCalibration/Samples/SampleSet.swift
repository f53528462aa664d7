import Dispatch
import FoundationEssentials
import KVTCCodec
import KVTCModel

/// KV samples in safetensors files, as `ProfileFormat.md` describes them. Files are mapped and read piece by piece: they may
/// be larger than memory.
public final class SampleSet: SampleSource {
    private struct Shard {
        var path: String
        var data: Data
        var positions: [Int32]
        /// Element type and byte offset of each tensor, canonical order.
        var tensors: [(element: Element, offset: Int)]
    }

    /// The tensors, the same in every file.
    public let geometry: Geometry
    /// The model named in the files.
    public let model: String
    /// The digest of the model's weights that the files name; nil where they name none.
    public let weightsDigest: String?
    /// The rank that the files name, nil where they are of a whole model.
    public let rank: ModelRank?
    /// Tokens in all files.
    public let tokens: Int
    /// The number format of the tensors; nil where it is not the same for all.
    public let element: Element?
    private let shards: [Shard]
    /// First token of each shard.
    private let starts: [Int]
    private let rotation: Rotation

    /// Opens and checks every file.
    public init(paths: [String], content: SampleContent = .cache) throws {
        guard let first = paths.first else { throw CalibrationError("no sample files given") }
        var shards: [Shard] = []
        var description: SampleDescription?
        for path in paths {
            let data: Data
            do { data = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped) } catch {
                throw CalibrationError("\(path) can't be read; is it there and readable?")
            }
            do {
                let file = try data.withUnsafeBytes { bytes in try Safetensors(bytes) }
                let own = try data.withUnsafeBytes { try SampleDescription(of: file, bytes: $0, content: content) }
                if let description { try own.check(against: description, first: first) }
                description = description ?? own
                shards.append(try SampleSet.shard(path, data, file, own.geometry))
            } catch {
                throw CalibrationError("\(path): \(error)")
            }
        }
        self.shards = shards
        geometry = description!.geometry
        model = description!.model
        weightsDigest = description!.weightsDigest
        rank = description!.rank
        rotation = Rotation(geometry: geometry)
        let elements = Set(shards.flatMap { $0.tensors.map(\.element) })
        element = elements.count == 1 ? elements.first : nil
        var starts: [Int] = []
        var tokens = 0
        for shard in shards {
            starts.append(tokens)
            tokens += shard.positions.count
        }
        self.starts = starts
        self.tokens = tokens
        guard tokens > 0 else { throw CalibrationError("the sample files hold no tokens") }
    }

    /// Index of the first token of each context: where positions do not go on from the token before.
    public var contexts: [Range<Int>] {
        var starts: [Int] = []
        var (index, previous) = (0, Int32.min)
        for shard in shards {
            for (row, position) in shard.positions.enumerated() {
                if row == 0 || position != previous &+ 1 { starts.append(index) }
                previous = position
                index += 1
            }
        }
        return zip(starts, starts.dropFirst() + [tokens]).map { $0..<$1 }
    }

    /// Rows of the tokens `range` with rotation undone: [tokens][rowElements]. Uses all processors.
    public func rows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        let workers = max(1, min(range.count / 16, ProcessInfo.processInfo.activeProcessorCount))
        // Justified: every worker writes rows of its own.
        nonisolated(unsafe) let (target, own) = (target, self)
        DispatchQueue.concurrentPerform(iterations: workers) { worker in
            let first = range.lowerBound + range.count * worker / workers
            let end = range.lowerBound + range.count * (worker + 1) / workers
            own.convert(first..<end, into: target + (first - range.lowerBound) * own.geometry.rowElements)
        }
    }

    private func convert(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        let width = geometry.rowElements
        for (shard, start) in zip(shards, starts) {
            let part = range.clamped(to: start..<start + shard.positions.count)
            guard !part.isEmpty else { continue }
            shard.data.withUnsafeBytes { bytes in
                for (index, tensor) in geometry.tensors.enumerated() {
                    let (element, offset) = shard.tensors[index]
                    for token in part {
                        convertToFloat(
                            element, bytes.baseAddress! + offset + (token - start) * tensor.width * element.bytes,
                            target + (token - range.lowerBound) * width + geometry.offsets[index], tensor.width)
                    }
                }
            }
            for token in part {
                rotation.apply(
                    target + (token - range.lowerBound) * width, position: Int(shard.positions[token - start]),
                    direction: -1)
            }
        }
    }

    private func shard(of token: Int) -> (shard: Shard, row: Int) {
        precondition((0..<tokens).contains(token), "token \(token) of \(tokens)")
        let index = starts.lastIndex { $0 <= token }!
        return (shards[index], token - starts[index])
    }

    /// Position of a token.
    public func position(of token: Int) -> Int {
        let (shard, row) = shard(of: token)
        return Int(shard.positions[row])
    }

    /// The file and token, for messages.
    public func place(of token: Int) -> String {
        let (shard, row) = shard(of: token)
        return "\(shard.path): token \(row)"
    }

    /// The tokens of a range as the engine caches them, rows in canonical order: a page, where positions go on.
    /// - Precondition: ``element`` is not nil.
    public func cached(_ range: Range<Int>) -> [UInt8] {
        guard let bytes = element?.bytes else { preconditionFailure("tensors of several number formats") }
        let width = geometry.rowElements
        var result = [UInt8](repeating: 0, count: range.count * width * bytes)
        for token in range {
            let (shard, row) = shard(of: token)
            for (index, tensor) in geometry.tensors.enumerated() {
                let from = shard.tensors[index].offset + row * tensor.width * bytes
                let to = ((token - range.lowerBound) * width + geometry.offsets[index]) * bytes
                shard.data.withUnsafeBytes { source in
                    result.replaceSubrange(
                        to..<to + tensor.width * bytes, with: source[from..<from + tensor.width * bytes])
                }
            }
        }
        return result
    }

    private static func shard(_ path: String, _ data: Data, _ file: Safetensors, _ geometry: Geometry) throws -> Shard {
        guard let positions = file.tensors["positions"], positions.dtype == "I32", positions.shape.count == 1 else {
            throw CalibrationError("no I32 tensor \"positions\" [tokens]")
        }
        let types: [String: Element] = [
            "F16": .f16, "BF16": .bf16, "F32": .f32, "F8_E4M3": .e4m3, "F8_E5M2": .e5m2,
        ]
        let tensors = try geometry.tensors.map { tensor -> (Element, Int) in
            let name = SampleDescription.name(of: tensor)
            guard let entry = file.tensors[name], let type = types[entry.dtype] else {
                throw CalibrationError(
                    "tensor \(name) is \(file.tensors[name]?.dtype ?? "absent"); F16, BF16, F32, F8_E4M3 or F8_E5M2 is needed"
                )
            }
            guard entry.shape[0] == positions.shape[0] else {
                throw CalibrationError(
                    "tensor \(name) has \(entry.shape[0]) tokens, positions \(positions.shape[0]); layers that keep other "
                        + "tokens belong in files, and a profile, of their own")
            }
            return (type, entry.range.lowerBound)
        }
        let values = data.withUnsafeBytes { array($0, positions.range, of: Int32.self) }
        guard values.allSatisfy({ $0 >= 0 }) else { throw CalibrationError("negative positions") }
        return Shard(path: path, data: data, positions: values, tensors: tensors)
    }
}
