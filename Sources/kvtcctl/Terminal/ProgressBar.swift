import Glibc
import KVTCCommandLine

/// How far a long run is and when it will end, on standard error: one line that moves, or where that is no terminal, a line for
/// each stage and every ten percent.
struct ProgressBar {
    private var start = now()
    private let isTerminal = Terminal.canRedraw
    private var shown = -1.0
    private var stage = ""

    /// Redraws when there is something new to see.
    mutating func show(_ stage: String, _ fraction: Double) {
        // Another run begins anew.
        if fraction < shown { (start, shown) = (ProgressBar.now(), -1) }
        let elapsed = ProgressBar.now() - start
        guard stage != self.stage || fraction - shown >= (isTerminal ? 0.002 : 0.1) || fraction >= 1 && shown < 1
        else { return }
        (self.stage, shown) = (stage, fraction)
        let left = fraction > 0.02 ? "about \(Text.duration(elapsed / fraction * (1 - fraction))) left" : "estimating"
        guard isTerminal else {
            return complain("\(Text.decimal(100 * fraction, 0)) %  \(stage), \(Text.duration(elapsed)) so far, \(left)")
        }
        let line = Terminal.shown("\(Text.bar(fraction)) \(Text.decimal(100 * fraction, 0)) %  \(stage), \(left)")
        // A line that wraps can't be drawn over.
        standardError("\r\u{1B}[K\(Terminal.clipped(line, to: (Terminal.columns ?? 80) - 1))")
    }

    /// Leaves the line.
    func finish() { if isTerminal { standardError("\r\u{1B}[K") } }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
