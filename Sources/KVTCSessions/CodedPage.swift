import KVTCCodec
import KVTCModel

/// What a coded page is to those who rely on it.
package struct CodedPage: Hashable {
    /// Rows that come back bit-identical.
    package var exact: RowSet
    package var mode: Mode
    /// As `BlockHeader.distortion`.
    package var distortion: Float

    package init(exact: RowSet, mode: Mode, distortion: Float = 0) {
        (self.exact, self.mode, self.distortion) = (exact, mode, distortion)
    }

    package init(_ header: BlockHeader) {
        self.init(
            exact: header.mode.isExact ? RowSet.full(header.tokens) : header.protected, mode: header.mode,
            distortion: header.distortion)
    }

    package var isExact: Bool { exact.count == exact.capacity }
}
