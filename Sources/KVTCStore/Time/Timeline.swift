import Synchronization

/// The store's own time in seconds since 1970, which cannot be set. Where the first store of a directory begins it is the
/// wall clock's; from there on it goes with the steady clock, across restarts too, and the wall clock only tells how long no
/// store was open after the machine itself was off. Expiry is measured with it.
final class Timeline: Sendable {
    private let clock: StoreClock
    /// What has to be added to the steady clock's milliseconds.
    private let offset: Atomic<Int64>

    init(_ clock: StoreClock) {
        self.clock = clock
        offset = Atomic(Int64(clamping: clock.wallSeconds()) * 1000 - Int64(clamping: clock.milliseconds()))
    }

    /// Goes on from the latest of the marks that earlier processes left. Before anything is measured.
    func resume(_ marks: [TimeMark]) {
        guard let mark = marks.max(by: { $0.time < $1.time }) else { return }
        offset.store(offset(after: mark), ordering: .relaxed)
    }

    /// Goes on from a mark that is found late, unless it is later already: time does not go back.
    func catchUp(with mark: TimeMark) {
        offset.max(offset(after: mark), ordering: .relaxed)
    }

    private func offset(after mark: TimeMark) -> Int64 {
        let steady = Int64(clamping: clock.milliseconds())
        let isSameBoot = mark.boot != 0 && mark.boot == clock.boot && mark.steady <= steady
        // A wall clock that was set back meanwhile stops nothing for good, one that was set forward is taken at its word.
        let passed = isSameBoot ? steady - mark.steady : max(0, wall - mark.wall) * 1000
        return mark.time + passed - steady
    }

    private var wall: Int64 { min(Int64(clamping: clock.wallSeconds()), TimeMark.limit / 1000) }

    var now: Moment {
        Moment(milliseconds: UInt64(clamping: Int64(clamping: clock.milliseconds()) &+ offset.load(ordering: .relaxed)))
    }

    /// What a later process needs to go on.
    var mark: TimeMark {
        let steady = Int64(clamping: clock.milliseconds())
        return TimeMark(
            boot: clock.boot, steady: steady, wall: wall, time: steady &+ offset.load(ordering: .relaxed))
    }
}
