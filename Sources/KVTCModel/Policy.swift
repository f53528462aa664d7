/// A half-open range of token positions of a session.
public struct PositionRange: Hashable, Sendable {
    /// The first position inside.
    public var begin: UInt32
    /// The first position after.
    public var end: UInt32

    /// The range of positions from `begin` up to, not including, `end`.
    public init(begin: UInt32, end: UInt32) {
        self.begin = begin
        self.end = end
    }
}

/// What a session wants for its pages.
public struct Policy: Hashable, Sendable {
    /// Tokens at the start of the stream that stay lossless.
    public var sink: UInt32
    /// Tokens at the end of the stream that stay lossless.
    public var window: UInt32
    /// How the rest is coded.
    public var mode: Mode
    /// What ``quality`` means.
    public var qualityKind: Quality.Kind
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
    /// When pages are coded; nil: when the daemon's configuration says.
    public var code: CodingTime?

    /// The modes that a policy can ask for.
    public static let modes = Mode.allCases.filter { $0 != .raw }

    /// A policy; the defaults are those of a session that says nothing.
    public init(
        sink: UInt32 = 4, window: UInt32 = 128, mode: Mode = .transform, qualityKind: Quality.Kind = .ratio,
        priority: UInt8 = 128, pin: Bool = false, quality: Float = 16, ttlSeconds: UInt32 = 0,
        protected: [PositionRange] = [], near: Float? = nil, distortionLimit: Float? = nil, keepsOutliers: Bool = true,
        code: CodingTime? = nil
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
        self.code = code
    }
}
