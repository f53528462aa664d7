import KVTCModel

/// What one page's coded rows may cost.
struct Budget {
    var quality: Quality
    /// Bytes of the block beside the coded section and the protected rows.
    var overhead: Int
    /// Raw bytes of the coded rows.
    var rawBytes: Int

    init(_ task: CodingTask, codedRows: Int) {
        quality = task.quality
        overhead =
            BlockHeader.size + (task.header.protected.isEmpty ? 0 : RowSet.bitmapBytes(task.header.tokens))
        rawBytes = codedRows * task.header.rowElements * task.header.element.bytes
    }

    /// Whether a coded section is on the far side of what is asked: small enough for a ratio, or beyond a distortion bound.
    func isCoarse(bytes: Int, distortion: Double) -> Bool { fits(bytes: bytes) || !allows(distortion: distortion) }

    func fits(bytes: Int) -> Bool {
        quality.ratio.map { Double(bytes + overhead) * Double($0) <= Double(rawBytes) } ?? false
    }

    /// Whether a result keeps the promise of a distortion bound; a basis cut short can't keep every one.
    func allows(distortion: Double) -> Bool { quality.distortion.map { distortion <= Double($0) } ?? true }

    /// Of two neighbours on either side of the boundary, the one that keeps the promise: the coarse one for a ratio.
    func choose<T>(fine: T, coarse: T, distortion: (T) -> Double) -> T {
        allows(distortion: distortion(coarse)) ? coarse : fine
    }
}
