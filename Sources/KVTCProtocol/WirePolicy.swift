/// A half-open range of token positions of a session.
public struct PositionRange: WireMessage {
    /// The first position inside.
    public var begin: UInt32
    /// The first position after.
    public var end: UInt32

    /// The range of positions from `begin` up to, not including, `end`.
    public init(begin: UInt32, end: UInt32) {
        self.begin = begin
        self.end = end
    }

    /// Appends both ends.
    public func encode(to writer: inout ByteWriter) {
        writer.write(begin)
        writer.write(end)
    }

    /// Reads both ends; an empty or backward range is an error.
    public init(from reader: inout ByteReader) throws(WireError) {
        begin = try reader.readUInt32("range.begin")
        end = try reader.readUInt32("range.end")
        guard begin < end else { throw WireError(.invalidField, field: "range", "\(begin)..<\(end) holds no position") }
    }
}

/// How pages are coded once they leave the window.
public enum WireMode: UInt8, Sendable, CaseIterable {
    /// Bit-identical.
    case lossless = 1
    /// This daemon's transform coder.
    case transform = 2
    /// The published KVTC pipeline.
    case kvtc = 3
    /// Eight bits a value.
    case quant8 = 4
    /// Four bits a value.
    case quant4 = 5

    /// Whether the mode needs what calibration learned.
    public var needsProfile: Bool { self == .transform || self == .kvtc }
}

/// What the policy's quality number means.
public enum QualityKind: UInt8, Sendable, CaseIterable {
    /// Raw bytes over coded bytes to reach.
    case ratio = 0
    /// Relative squared error not to exceed.
    case distortion = 1
}

/// What a session wants for its pages.
public struct WirePolicy: WireMessage {
    /// Tokens at the start of the stream that stay lossless.
    public var sink: UInt32
    /// Tokens at the end of the stream that stay lossless.
    public var window: UInt32
    /// How the rest is coded.
    public var mode: WireMode
    /// What ``quality`` means.
    public var qualityKind: QualityKind
    /// Who goes first under pressure: 255 stays longest, 128 is normal.
    public var priority: UInt8
    /// Whether the session's pages are never evicted from the store.
    public var pin: Bool
    /// A ratio or a distortion, by ``qualityKind``.
    public var quality: Float
    /// Seconds a page lives after it was last pushed or touched; 0 for no limit.
    public var ttlSeconds: UInt32
    /// Positions that stay lossless wherever they are.
    public var protected: [PositionRange]
    /// Relative squared error with which the window may be coded while the session is idle; nil: it stays lossless.
    public var near: Float?
    /// Relative squared error that no coded page may exceed, whatever ``quality`` asks for: such a page gets a lower ratio
    /// and, where that does not do, stays lossless. Nil for no limit.
    public var distortionLimit: Float?
    /// Whether rows far outside of what the profile was calibrated on stay lossless by themselves.
    public var keepsOutliers: Bool

    /// A policy; the defaults are those of a session that says nothing.
    public init(
        sink: UInt32 = 4, window: UInt32 = 128, mode: WireMode = .transform, qualityKind: QualityKind = .ratio,
        priority: UInt8 = 128, pin: Bool = false, quality: Float = 16, ttlSeconds: UInt32 = 0,
        protected: [PositionRange] = [], near: Float? = nil, distortionLimit: Float? = nil, keepsOutliers: Bool = true
    ) {
        self.sink = sink
        self.window = window
        self.mode = mode
        self.qualityKind = qualityKind
        self.priority = priority
        self.pin = pin
        self.quality = quality
        self.ttlSeconds = ttlSeconds
        self.protected = protected
        self.near = near
        self.distortionLimit = distortionLimit
        self.keepsOutliers = keepsOutliers
    }

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
        sink = try reader.readUInt32("policy.sink")
        window = try reader.readUInt32("policy.window")
        mode = try reader.readCase("policy.mode")
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
        near = flags & Flag.near != 0 ? try WirePolicy.bound(&reader, "policy.near") : nil
        distortionLimit =
            flags & Flag.distortionLimit != 0 ? try WirePolicy.bound(&reader, "policy.distortionLimit") : nil
    }

    private static func bound(_ reader: inout ByteReader, _ field: String) throws(WireError) -> Float {
        let value = try reader.readFloat(field)
        guard value > 0, value < 1 else {
            throw WireError(.invalidField, field: field, "\(value) is not above 0 and below 1")
        }
        return value
    }
}
