import KVTCCodec
import KVTCStore

/// What the machines of a fleet know of a page before they have it.
package struct PageHead: Hashable, Sendable {
    /// Expiry, pin and promise are a machine's own and are not among them.
    var attributes: PageAttributes
    /// Bytes of the block.
    var length: Int
    /// The mode of its header, as a number, since a later release may have more.
    var mode: UInt8
    /// The distortion that its header states.
    var distortion: Float
    /// Rows that come back as they were although others do not.
    var exactRows: UInt32

    /// Of a block as a store has it; nil for one that does not travel: raw, or none at all.
    init?(block: UnsafeRawBufferPointer, attributes: PageAttributes) {
        guard attributes.coded, let header = try? BlockHeader.parse(block, isVerified: true), header.mode != .raw else {
            return nil
        }
        self.attributes = attributes
        (self.attributes.pinned, self.attributes.expires, self.attributes.promised) = (false, nil, false)
        // Stores have pages from before there was the mark.
        self.attributes.lossy = !header.mode.isExact
        length = block.count
        mode = header.mode.rawValue
        distortion = header.distortion
        exactRows = UInt32(clamping: header.protected.count)
    }

    init(attributes: PageAttributes, length: Int, mode: UInt8, distortion: Float, exactRows: UInt32) {
        (self.attributes, self.length, self.mode) = (attributes, length, mode)
        (self.distortion, self.exactRows) = (distortion, exactRows)
    }

    var page: SharedPage { SharedPage(attributes: attributes, length: length) }

    /// Whether one with this head, as it is in the cluster, need not give way to the other.
    func serves(insteadOf other: PageHead) -> Bool {
        let lives = attributes.ttl == 0 || (other.attributes.ttl != 0 && other.attributes.ttl <= attributes.ttl)
        // What gives way to the same page on every machine gives way here.
        let stays =
            (!attributes.near || other.attributes.near) && (!attributes.nonFinite || other.attributes.nonFinite)
        let isAsGood =
            !attributes.lossy
            || (other.attributes.lossy && distortion <= other.distortion && exactRows >= other.exactRows)
        return lives && stays && isAsGood
    }
}
