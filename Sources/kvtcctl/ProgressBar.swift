import Glibc

/// One line on standard error that shows how far a long run is and when it will end; silent where that is no terminal.
struct ProgressBar {
    private let start = now()
    private let isTerminal = Terminal.canRedraw
    private var shown = -1.0
    private var stage = ""

    /// Redraws when there is something new to see.
    mutating func show(_ stage: String, _ fraction: Double) {
        let elapsed = ProgressBar.now() - start
        if !isTerminal {
            // In a log: a line for each stage.
            if stage != self.stage {
                complain("\(stage) (\(Text.decimal(100 * fraction, 0)) %, \(Text.duration(elapsed)))")
            }
            self.stage = stage
            return
        }
        guard stage != self.stage || fraction - shown >= 0.002 || fraction >= 1 else { return }
        (self.stage, shown) = (stage, fraction)
        let left = fraction > 0.02 ? "about \(Text.duration(elapsed / fraction * (1 - fraction))) left" : "estimating"
        let line = Terminal.shown("\(Text.bar(fraction)) \(Text.decimal(100 * fraction, 0)) %  \(stage), \(left)")
        // A line that wraps can't be drawn over.
        write("\r\u{1B}[K\(Terminal.clipped(line, to: (Terminal.columns ?? 80) - 1))")
    }

    /// Leaves the line.
    func finish() { if isTerminal { write("\r\u{1B}[K") } }

    private func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(STDERR_FILENO, bytes, bytes.count)
    }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
