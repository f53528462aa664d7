import FoundationEssentials

/// A safetensors file in memory: u64 header length, JSON header, tensor bytes
/// (format: https://github.com/huggingface/safetensors#format).
public struct Safetensors: Sendable {
    /// Where one tensor lies.
    public struct Tensor: Hashable, Sendable, Codable {
        /// "F32", "F16", "BF16", "I8", "U8", "I16", "U16", "I32", …
        public let dtype: String
        /// Row-major extents.
        public let shape: [Int]
        let data_offsets: [Int]

        /// Byte range in the file.
        public internal(set) var range: Range<Int> = 0..<0

        private enum CodingKeys: String, CodingKey { case dtype, shape, data_offsets }
    }

    /// Largest header that is read: 64 tensors a layer of 4096 layers need less.
    public static let maximumHeader = 32 << 20
    private static let widths = [
        "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1,
        "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    ]

    /// By name.
    public let tensors: [String: Tensor]
    /// The free text of `__metadata__`.
    public let metadata: [String: String]

    private struct Header: Decodable {
        var tensors: [String: Tensor] = [:]
        var metadata: [String: String] = [:]

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: AnyKey.self)
            for key in container.allKeys {
                if key.stringValue == "__metadata__" {
                    metadata = try container.decode([String: String].self, forKey: key)
                } else {
                    tensors[key.stringValue] = try container.decode(Tensor.self, forKey: key)
                }
            }
        }
    }

    private struct HeaderText: Encodable {
        var metadata: [String: String]
        var tensors: [String: Tensor]

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: AnyKey.self)
            try container.encode(metadata, forKey: AnyKey(stringValue: "__metadata__")!)
            for (name, tensor) in tensors { try container.encode(tensor, forKey: AnyKey(stringValue: name)!) }
        }
    }

    private struct AnyKey: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init?(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    /// The byte after the last tensor's last one.
    public let end: Int

    /// Reads the header of a file and checks every tensor's range against its size.
    /// - Throws: `invalid` where the file can't be read, `corrupt` naming the tensor that does not fit.
    package init(header file: InputFile) throws(CodecError) {
        let count = min(8, file.byteCount)
        let length = try Safetensors.headerLength(file.bytes(0..<count), of: file.byteCount)
        try self.init(header: Data(file.bytes(8..<8 + length)), of: file.byteCount)
    }

    /// Reads the header and checks every tensor's range against the file.
    /// - Throws: `corrupt` naming the tensor that does not fit.
    public init(_ file: UnsafeRawBufferPointer) throws(CodecError) {
        let length = try Safetensors.headerLength(Array(file.prefix(8)), of: file.count)
        try self.init(header: Data(file[8..<8 + length]), of: file.count)
    }

    /// Bytes of JSON that the first eight bytes announce.
    private static func headerLength(_ first: [UInt8], of total: Int) throws(CodecError) -> Int {
        guard first.count == 8 else { throw .corrupt("safetensors file of \(total) bytes") }
        let length = first.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(maximumHeader), length <= UInt64(total - 8) else {
            throw .corrupt("safetensors header of \(length) bytes in a file of \(total)")
        }
        return Int(length)
    }

    private init(header json: Data, of total: Int) throws(CodecError) {
        let start = 8 + json.count
        let header: Header
        do {
            header = try JSONDecoder().decode(Header.self, from: json)
        } catch {
            throw .corrupt("safetensors header: \(error)")
        }
        var checked: [String: Tensor] = [:]
        for (name, tensor) in header.tensors {
            guard let width = Safetensors.widths[tensor.dtype] else {
                throw .corrupt("tensor \(name) has the unknown dtype \(tensor.dtype)")
            }
            var bytes = width
            for extent in tensor.shape {
                let (product, overflow) = bytes.multipliedReportingOverflow(by: extent)
                guard extent >= 0, !overflow else { throw .corrupt("tensor \(name) has the shape \(tensor.shape)") }
                bytes = product
            }
            let offsets = tensor.data_offsets
            guard offsets.count == 2, offsets[0] >= 0, offsets[0] <= offsets[1], offsets[1] <= total - start,
                offsets[1] - offsets[0] == bytes
            else { throw .corrupt("tensor \(name): bytes \(offsets) do not hold \(tensor.shape) of \(tensor.dtype)") }
            var placed = tensor
            placed.range = start + offsets[0]..<start + offsets[1]
            checked[name] = placed
        }
        tensors = checked
        end = checked.values.reduce(start) { max($0, $1.range.upperBound) }
        metadata = header.metadata
    }

    /// The tensor of that name, dtype and shape.
    func tensor(_ name: String, _ dtype: String, _ shape: [Int]) throws(CodecError) -> Range<Int> {
        guard let tensor = tensors[name] else { throw .corrupt("no tensor \(name)") }
        guard tensor.dtype == dtype, tensor.shape == shape else {
            throw .corrupt("tensor \(name) is \(tensor.dtype) \(tensor.shape); \(dtype) \(shape) is needed")
        }
        return tensor.range
    }

    /// A tensor to be written.
    public struct Source {
        let name: String
        let dtype: String
        let shape: [Int]
        let byteCount: Int
        /// Calls its argument with the bytes.
        let body: ((UnsafeRawBufferPointer) throws -> Void) throws -> Void

        /// Row-major values of one of the formats' types, little-endian as they are.
        public init<T: BitwiseCopyable>(_ name: String, _ dtype: String, _ shape: [Int], _ values: [T]) {
            self.name = name
            self.dtype = dtype
            self.shape = shape
            byteCount = values.count * MemoryLayout<T>.stride
            body = { sink in try values.withUnsafeBytes(sink) }
        }
    }

    /// Hands a file with these tensors in this order to `sink`, piece by piece.
    public static func serialise(
        metadata: [String: String], tensors: [Source], to sink: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        var header = HeaderText(metadata: metadata, tensors: [:])
        var offset = 0
        for tensor in tensors {
            header.tensors[tensor.name] = Tensor(
                dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, offset + tensor.byteCount])
            offset += tensor.byteCount
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        var json = try encoder.encode(header)
        json.append(contentsOf: [UInt8](repeating: 0x20, count: (64 - (8 + json.count) % 64) % 64))
        try withUnsafeBytes(of: UInt64(json.count).littleEndian, sink)
        try json.withUnsafeBytes(sink)
        for tensor in tensors { try tensor.body(sink) }
    }
}

/// An array from a little-endian range of a file.
package func array<T: BitwiseCopyable>(_ file: UnsafeRawBufferPointer, _ range: Range<Int>, of: T.Type) -> [T] {
    [T](unsafeUninitializedCapacity: range.count / MemoryLayout<T>.stride) { buffer, count in
        UnsafeMutableRawBufferPointer(buffer).copyMemory(from: UnsafeRawBufferPointer(rebasing: file[range]))
        count = range.count / MemoryLayout<T>.stride
    }
}
