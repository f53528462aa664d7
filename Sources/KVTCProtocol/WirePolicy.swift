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

    /// A policy; the defaults are those of a session that says nothing.
    public init(
        sink: UInt32 = 4, window: UInt32 = 128, mode: WireMode = .transform, qualityKind: QualityKind = .ratio,
        priority: UInt8 = 128, pin: Bool = false, quality: Float = 16, ttlSeconds: UInt32 = 0,
        protected: [PositionRange] = []
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
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(sink)
        writer.write(window)
        writer.write(mode.rawValue)
        writer.write(qualityKind.rawValue)
        writer.write(priority)
        writer.write(pin ? UInt8(1) : 0)
        writer.write(quality)
        writer.write(ttlSeconds)
        writer.write(list: protected) { $0.encode(to: &$1) }
    }

    /// Reads the fields in wire order; an unknown mode, kind or flag and a quality that is not a number are errors.
    public init(from reader: inout ByteReader) throws(WireError) {
        sink = try reader.readUInt32("policy.sink")
        window = try reader.readUInt32("policy.window")
        mode = try reader.readCase("policy.mode")
        qualityKind = try reader.readCase("policy.qualityKind")
        priority = try reader.readUInt8("policy.priority")
        let flags = try reader.readUInt8("policy.flags")
        guard flags & ~1 == 0 else { throw WireError(.invalidField, field: "policy.flags", "unknown bits in \(flags)") }
        pin = flags & 1 != 0
        quality = try reader.readFloat("policy.quality")
        guard quality.isFinite, quality >= 0 else {
            throw WireError(.invalidField, field: "policy.quality", "\(quality) is not a finite, non-negative number")
        }
        ttlSeconds = try reader.readUInt32("policy.ttlSeconds")
        protected = try reader.readList("policy.protected", itemBytes: 8) { r, _ throws(WireError) in
            try PositionRange(from: &r)
        }
    }
}
