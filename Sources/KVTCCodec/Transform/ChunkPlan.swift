import CKernels

/// How the components of a basis that are coded are cut into chunks, each with entropy coder states of its own.
///
/// Components are coded in sets of `lanes`, one to a state; a chunk has some sets.
package struct ChunkPlan {
    private static let mostLanes = Int(KV_MOST_LANES)

    /// Components of the basis that are coded.
    let active: Int
    /// States of each chunk.
    package let lanes: Int
    package let chunks: Int
    private let sets: Int

    /// - Throws: `corrupt` where there is no such plan.
    init(active: Int, lanes: Int, chunks: Int) throws(CodecError) {
        guard (1...ChunkPlan.mostLanes).contains(lanes) else { throw .corrupt("\(lanes) states a chunk") }
        (self.active, self.lanes, self.chunks, sets) = (active, lanes, chunks, (active + lanes - 1) / lanes)
        guard chunks <= sets, chunks > 0 || active == 0 else {
            throw .corrupt("\(chunks) chunks for \(active) components")
        }
    }

    /// As many chunks as are wanted and there are components for.
    init(active: Int, lanes: Int, upTo most: Int) {
        (self.active, self.lanes, sets) = (active, lanes, (active + lanes - 1) / lanes)
        chunks = min(most, sets)
    }

    /// What the encoder chooses. A state costs about three bytes: one for each 768 codes, in whole registers, and no more than
    /// 32 for each 65 536 codes, take less than a hundredth of what the codes take. With 64 rows a chunk has about 1024
    /// components.
    package init(active: Int, rows: Int) {
        let codes = active * rows
        let lanes = max(1, min(max(codes / 6144 * 8, 8), active, ChunkPlan.mostLanes))
        self.init(active: active, lanes: lanes, upTo: max(1, (codes + 32_768) / 65_536))
    }

    /// A chunk's components among those of the basis that are coded.
    package func components(_ chunk: Int) -> Range<Int> {
        chunk * sets / chunks * lanes..<min(active, (chunk + 1) * sets / chunks * lanes)
    }

    /// Bytes of directory and states.
    var bytes: Int { chunks * (4 + 4 * lanes) }
}
