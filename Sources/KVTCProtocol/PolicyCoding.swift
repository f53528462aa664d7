import KVTCModel

extension PositionRange: WireMessage {
    /// Appends both ends.
    public func encode(to writer: inout ByteWriter) {
        writer.write(begin)
        writer.write(end)
    }

    /// Reads both ends; an empty or backward range is an error.
    public init(from reader: inout ByteReader) throws(WireError) {
        self.init(begin: try reader.readUInt32("range.begin"), end: try reader.readUInt32("range.end"))
        guard begin < end else { throw WireError(.invalidField, field: "range", "\(begin)..<\(end) holds no position") }
    }
}

extension Policy: WireMessage {
    private enum Flag {
        static let pin: UInt8 = 1
        static let near: UInt8 = 2
        static let distortionLimit: UInt8 = 4
        static let dropsOutliers: UInt8 = 8
        static let all: UInt8 = 15
    }

    /// Appends the fields in wire order; those that are nil leave only their flag unset.
    public func encode(to writer: inout ByteWriter) {
        writer.write(sink)
        writer.write(window)
        writer.write(mode.rawValue)
        writer.write(qualityKind.rawValue)
        writer.write(priority)
        writer.write(
            (pin ? Flag.pin : 0) | (near != nil ? Flag.near : 0) | (distortionLimit != nil ? Flag.distortionLimit : 0)
                | (keepsOutliers ? 0 : Flag.dropsOutliers))
        writer.write(quality)
        writer.write(ttlSeconds)
        writer.write(list: protected) { $0.encode(to: &$1) }
        if let near { writer.write(near) }
        if let distortionLimit { writer.write(distortionLimit) }
    }

    /// Reads the fields in wire order; an unknown mode, kind or flag, a quality that is not a number and a bound outside
    /// of 0 to 1 are errors.
    public init(from reader: inout ByteReader) throws(WireError) {
        self.init()
        sink = try reader.readUInt32("policy.sink")
        window = try reader.readUInt32("policy.window")
        mode = try reader.readCase("policy.mode")
        guard Policy.modes.contains(mode) else {
            throw WireError(.invalidField, field: "policy.mode", "\(mode.rawValue) is not a known value")
        }
        qualityKind = try reader.readCase("policy.qualityKind")
        priority = try reader.readUInt8("policy.priority")
        let flags = try reader.readUInt8("policy.flags")
        guard flags & ~Flag.all == 0 else {
            throw WireError(.invalidField, field: "policy.flags", "unknown bits in \(flags)")
        }
        pin = flags & Flag.pin != 0
        keepsOutliers = flags & Flag.dropsOutliers == 0
        quality = try reader.readFloat("policy.quality")
        guard quality.isFinite, quality >= 0 else {
            throw WireError(.invalidField, field: "policy.quality", "\(quality) is not a finite, non-negative number")
        }
        ttlSeconds = try reader.readUInt32("policy.ttlSeconds")
        protected = try reader.readList("policy.protected", itemBytes: 8) { r, _ throws(WireError) in
            try PositionRange(from: &r)
        }
        near = flags & Flag.near != 0 ? try Policy.bound(&reader, "policy.near") : nil
        distortionLimit =
            flags & Flag.distortionLimit != 0 ? try Policy.bound(&reader, "policy.distortionLimit") : nil
    }

    private static func bound(_ reader: inout ByteReader, _ field: String) throws(WireError) -> Float {
        let value = try reader.readFloat(field)
        guard value > 0, value < 1 else {
            throw WireError(.invalidField, field: field, "\(value) is not above 0 and below 1")
        }
        return value
    }
}
