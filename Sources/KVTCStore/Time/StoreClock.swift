import Glibc

/// The store's clocks, replaceable so that tests can move time.
public struct StoreClock: Sendable {
    /// Wall-clock seconds since 1970. Setting that clock changes nothing of a store that is open: see ``Store/seconds``.
    public var wallSeconds: @Sendable () -> UInt64
    /// Milliseconds of a clock that never jumps and goes on while the machine sleeps; leases and lifetimes are measured with
    /// it.
    public var milliseconds: @Sendable () -> UInt64
    /// Names the stretch of time for which `milliseconds` counts on, which is one run of the machine; 0: unknown.
    public var boot: UInt64

    /// A clock made of two readings.
    public init(
        wallSeconds: @escaping @Sendable () -> UInt64, milliseconds: @escaping @Sendable () -> UInt64, boot: UInt64 = 0
    ) {
        self.wallSeconds = wallSeconds
        self.milliseconds = milliseconds
        self.boot = boot
    }

    /// The machine's clocks.
    public static let system = StoreClock(
        wallSeconds: { UInt64(max(0, time(nil))) },
        milliseconds: {
            var now = timespec()
            clock_gettime(CLOCK_BOOTTIME, &now)
            return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
        },
        boot: systemBoot)

    /// Of this run of the machine, and of this namespace of clocks: containers may have their own.
    private static let systemBoot: UInt64 = {
        var text = [UInt8](repeating: 0, count: 64)
        let file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return 0 }
        defer { close(file) }
        let count = text.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
        guard count > 0 else { return 0 }
        var space = stat()
        let isKnown = stat("/proc/self/ns/time", &space) == 0
        return text.withUnsafeBytes {
            checksum(UnsafeRawBufferPointer(rebasing: $0[..<count]), seed: isKnown ? UInt64(space.st_ino) : 0)
        }
    }()
}
