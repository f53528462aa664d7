import Glibc
import KVTCCalibration
import KVTCSystem

/// One side of a comparison.
struct Side {
    var name: String
    var run: () throws -> Void

    init(_ name: String, _ run: @escaping () throws -> Void) {
        self.name = name
        self.run = run
    }
}

/// Runs the sides in turns, so that what else the machine does meets all of them alike; one round first that does not
/// count. Returns each side's median in seconds: of the clock on the wall, or for work of one thread that waits for nothing
/// of that thread's processor time, which other processes disturb less.
func interleaved(rounds: Int, threadTime: Bool = false, _ sides: [Side]) throws -> [String: Double] {
    var times = [[Double]](repeating: [], count: sides.count)
    for round in 0...rounds {
        for (index, side) in sides.enumerated() {
            let seconds = try threadTime ? threadSeconds(side.run) : seconds(side.run)
            if round > 0 { times[index].append(seconds) }
        }
    }
    return Dictionary(uniqueKeysWithValues: zip(sides.map(\.name), times.map { quantile($0, 0.5) }))
}

func seconds(_ body: () throws -> Void) rethrows -> Double {
    let start = MonotonicClock.nanoseconds
    try body()
    return Double(MonotonicClock.nanoseconds - start) / 1e9
}

func threadSeconds(_ body: () throws -> Void) rethrows -> Double {
    func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
    let start = now()
    try body()
    return now() - start
}

/// The value below which that share of the values lies.
func quantile(_ values: [Double], _ share: Double) -> Double {
    let sorted = values.sorted()
    return sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
}

/// Bytes that look like halves of a cache: finite, exponents around 1, mantissas noise.
func noisePage(bytes: Int, seed: UInt64) -> [UInt8] {
    var random = SplitMix(state: seed)
    return [UInt8](unsafeUninitializedCapacity: bytes) { buffer, filled in
        for index in stride(from: 0, to: bytes - 1, by: 2) {
            let half = UInt16(truncatingIfNeeded: random.next()) & 0x0FFF | 0x3400
            buffer[index] = UInt8(half & 255)
            buffer[index + 1] = UInt8(half >> 8)
        }
        filled = bytes
    }
}
