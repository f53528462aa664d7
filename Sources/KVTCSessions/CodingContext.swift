import KVTCCodec
import KVTCModel

/// What it takes to code pages of one shape; shared by the sessions that have that shape and the jobs of their pages.
package final class CodingContext: Sendable {
    /// Codes and decodes.
    package let codec: PageCodec
    /// How pages lie in the worker's memory.
    package let layout: PageLayout

    /// A context for pages of a codec's geometry in a layout.
    package init(codec: PageCodec, layout: PageLayout) {
        self.codec = codec
        self.layout = layout
    }
}
