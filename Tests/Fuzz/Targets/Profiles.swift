import KVTCCodec
import KVTCModel

/// A profile file; what is accepted must be able to code and decode a page.
enum Profiles {
    static func run(_ input: UnsafeRawBufferPointer) {
        guard let profile = try? Profile(bytes: [UInt8](input)), profile.geometry.rowElements <= 4096,
            let codec = try? PageCodec(geometry: profile.geometry, profile: profile)
        else { return }
        let tokens = 4
        let layout = PageLayout(element: .f16, order: .tokenTensorHead)
        let size = layout.pageBytes(geometry: profile.geometry, tokens: tokens)
        let page = (0..<size).map { UInt8($0 % 2 == 0 ? 7 : 60) }
        let block = page.withUnsafeBytes {
            try? codec.wrap(page: $0, layout: layout, tokens: tokens, firstPosition: 3)
        }
        for mode in [Mode.transform, .kvtc] {
            let coded = block?.withUnsafeBytes {
                try? codec.encode(block: $0, mode: mode, quality: .ratio(8), protected: RowSet(count: tokens))
            }
            if let coded { Blocks.use(coded, with: codec) }
        }
    }
}

/// Any safetensors file.
enum SafetensorsFiles {
    static func run(_ input: UnsafeRawBufferPointer) {
        guard let file = try? Safetensors(input) else { return }
        for tensor in file.tensors.values { precondition(tensor.range.upperBound <= input.count) }
    }
}
