import Testing

@testable import KVTCShared

@Suite struct BreakerTests {
    private static let second: UInt64 = 1_000_000_000

    @Test func opensAfterFaultsInARow() {
        var breaker = Breaker(now: 0)
        #expect(breaker.failed(.timeout, .lookup, waitingSince: 1, now: 2) == false)
        #expect(breaker.failed(.timeout, .lookup, waitingSince: 3, now: 4) == false)
        #expect(breaker.succeeded(.lookup, now: 5) == false)
        #expect(breaker.failed(.timeout, .lookup, waitingSince: 6, now: 7) == false)
        #expect(breaker.failed(.loading, .lookup, waitingSince: 8, now: 9) == false)
        #expect(breaker.failed(.timeout, .lookup, waitingSince: 10, now: 11) == true)
        #expect(breaker.state == .open)
        #expect(breaker.since == 11)
    }

    @Test func whatFailsTogetherCountsOnce() {
        var breaker = Breaker(now: 0)
        for _ in 0..<100 { #expect(breaker.failed(.timeout, .lookup, waitingSince: 1, now: 5) == false) }
        for _ in 0..<100 { #expect(breaker.failed(.timeout, .lookup, waitingSince: 6, now: 9) == false) }
        #expect(breaker.failed(.timeout, .lookup, waitingSince: 10, now: 11) == true)
    }

    @Test func whatTheServerAnswersInTimeIsNoReason() {
        var breaker = Breaker(now: 0)
        for time in 0..<100 as Range<UInt64> {
            for fault in [RedisFault.full, .refused, .down, .oversize, .busy, .open] {
                #expect(breaker.failed(fault, .store, waitingSince: time, now: time) == false)
            }
        }
        #expect(breaker.state == .closed)
    }

    @Test func quickAnswersOfOneLaneDoNotExcuseAnother() {
        var breaker = Breaker(now: 0)
        for time in [1, 3] as [UInt64] {
            #expect(breaker.failed(.timeout, .lookup, waitingSince: time, now: time + 1) == false)
            #expect(breaker.succeeded(.fetch, now: time + 1) == false)
        }
        #expect(breaker.failed(.timeout, .lookup, waitingSince: 5, now: 6) == true)
        #expect(breaker.takeProbe(now: .max) == true)
        breaker.probed(succeeded: true, now: 7)
        #expect(breaker.succeeded(.fetch, now: 8) == false)
        #expect(breaker.state == .halfOpen)
        #expect(breaker.succeeded(.lookup, now: 9) == true)
        #expect(breaker.state == .closed)
    }

    @Test func pausesGrowUntilAnAnswerComesInTime() {
        var breaker = Breaker(now: 0)
        #expect(breaker.couldNotConnect(now: 0) == true)
        #expect(breaker.couldNotConnect(now: 1) == false)
        var now: UInt64 = 0
        var pauses: [UInt64] = []
        for _ in 0..<12 {
            let due = breaker.nextProbe!
            #expect(breaker.takeProbe(now: due - 1) == false)
            #expect(breaker.takeProbe(now: due) == true)
            #expect(breaker.takeProbe(now: .max) == false)
            pauses.append(due - now)
            now = due
            breaker.probed(succeeded: false, now: now)
        }
        var expected = Breaker.firstPause
        for pause in pauses {
            #expect((expected / 4 * 3...expected / 4 * 5).contains(pause))
            expected = min(expected * 2, Breaker.longestPause)
        }
        // A probe that succeeds is not enough to begin from the start.
        #expect(breaker.takeProbe(now: .max) == true)
        breaker.probed(succeeded: true, now: now)
        #expect(breaker.state == .halfOpen)
        #expect(breaker.failed(.timeout, .fetch, waitingSince: now, now: now) == true)
        #expect(breaker.nextProbe! - now >= Breaker.longestPause / 4 * 3)
        #expect(breaker.takeProbe(now: .max) == true)
        breaker.probed(succeeded: true, now: now)
        #expect(breaker.succeeded(.fetch, now: now) == true)
        #expect(breaker.couldNotConnect(now: now) == true)
        #expect(breaker.nextProbe! - now <= Breaker.firstPause / 4 * 5)
    }
}
