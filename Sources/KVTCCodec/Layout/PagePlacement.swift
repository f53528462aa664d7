import CKernels
import KVTCModel
import Synchronization

/// Where the decoded columns of a layer range go in one layout: made once, used for every page.
final class PagePlacement: Sendable {
    struct Key: Hashable {
        var layout: PageLayout
        var layers: Range<Int>
        var tokens: Int
    }

    /// Whole heads of one tensor that are transformed together: few enough that their floats stay in the core's own cache.
    struct Chunk {
        var columns: Range<Int>
        /// Of ``chunkRuns``.
        var runs: Range<Int>
        /// Of the profile's stretches.
        var rotations: Range<Int>
        var basis: Int
        /// What the columns are lowered by for their places in the basis.
        var basisOrigin: Int
        /// Of the matrices by head.
        var blocks: Range<Int>
    }

    static let chunkColumns = 256
    let runs: [kv_run]
    let chunks: [Chunk]
    let chunkRuns: [kv_run]
    /// Of the output.
    let bytes: Int
    /// Whether the output is the rows as blocks hold them, one after another.
    var isCanonical: Bool {
        runs.count == 1 && runs[0].element_stride == 1 && runs[0].column == 0 && runs[0].token_stride == runs[0].length
    }

    init(_ key: Key, geometry: Geometry, profile: Profile?) {
        bytes = key.layout.pageBytes(geometry: geometry, tokens: key.tokens, layers: key.layers)
        runs = key.layout.placements(geometry: geometry, tokens: key.tokens, layers: key.layers)
        let ascending = runs.sorted { $0.column < $1.column }
        let stretches = profile?.rotation.stretches ?? []
        let blocks = profile?.inverseRoot?.blocks ?? []
        var chunks: [Chunk] = []
        var chunkRuns: [kv_run] = []
        var (run, stretch, block) = (0, 0, 0)
        for index in geometry.tensorIndices(layers: key.layers) {
            let (tensor, offset) = (geometry.tensors[index], geometry.offsets[index])
            let step = max(1, PagePlacement.chunkColumns / tensor.headDim) * tensor.headDim
            for begin in stride(from: offset, to: offset + tensor.width, by: step) {
                let end = min(begin + step, offset + tensor.width)
                let firstRun = chunkRuns.count
                while run < ascending.count, ascending[run].column < end {
                    chunkRuns.append(PagePlacement.part(ascending[run], begin..<end))
                    guard ascending[run].column + ascending[run].length <= end else { break }
                    run += 1
                }
                while stretch < stretches.count, stretches[stretch].first < begin { stretch += 1 }
                let firstStretch = stretch
                while stretch < stretches.count, stretches[stretch].first < end { stretch += 1 }
                while block < blocks.count, blocks[block].lowerBound < begin { block += 1 }
                let firstBlock = block
                while block < blocks.count, blocks[block].lowerBound < end { block += 1 }
                let origins = profile?.bases.map { $0.columns.origin(of: begin) } ?? []
                let basis = origins.firstIndex { $0 != nil } ?? 0
                chunks.append(
                    Chunk(
                        columns: begin..<end, runs: firstRun..<chunkRuns.count, rotations: firstStretch..<stretch,
                        basis: basis, basisOrigin: origins.isEmpty ? 0 : origins[basis] ?? 0,
                        blocks: firstBlock..<block))
            }
        }
        self.chunks = chunks
        self.chunkRuns = chunkRuns
    }

    /// Lends where whole rows of `rowBytes` bytes lie, in elements of `bytes` each.
    func withRuns(rowBytes: Int, bytes: Int, _ body: (UnsafePointer<kv_placement>) -> Void) {
        runs.withUnsafeBufferPointer { runs in
            var placement = kv_placement(
                runs: runs.baseAddress, run_count: runs.count, bytes: bytes, row_bytes: rowBytes)
            body(&placement)
        }
    }

    private static func part(_ run: kv_run, _ columns: Range<Int>) -> kv_run {
        let begin = max(Int(run.column), columns.lowerBound)
        let end = min(Int(run.column + run.length), columns.upperBound)
        return kv_run(
            column: UInt32(begin), length: UInt32(end - begin),
            base: run.base + (begin - Int(run.column)) * run.element_stride, token_stride: run.token_stride,
            element_stride: run.element_stride)
    }
}

/// Placements by layout and layer range, shared by the decoders of one codec.
final class PlacementCache: Sendable {
    private static let limit = 1024
    private let placements = Mutex<[PagePlacement.Key: PagePlacement]>([:])

    func placement(_ key: PagePlacement.Key, _ geometry: Geometry, _ profile: Profile?) -> PagePlacement {
        if let placement = placements.withLock({ $0[key] }) { return placement }
        let placement = PagePlacement(key, geometry: geometry, profile: profile)
        placements.withLock { placements in
            // Clients choose layer ranges: forget all rather than grow for ever.
            if placements.count >= PlacementCache.limit { placements.removeAll() }
            placements[key] = placement
        }
        return placement
    }
}
