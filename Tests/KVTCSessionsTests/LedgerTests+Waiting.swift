import KVTCModel
import KVTCSessions
import Testing

import struct KVTCStore.StoreKey

// Pages that may be coded and wait for a reason.
extension LedgerTests {
    private static func policy(_ code: CodingTime?, window: UInt32 = 0) -> Policy {
        Policy(sink: 0, window: window, mode: .quant8, code: code)
    }

    @Test func pagesWaitAndAreTakenInTheOrderInWhichTheyCame() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(.underPressure, window: 16))
        let other = Self.session(&ledger, Self.policy(.idle))
        #expect(Self.push(&ledger, id, 0..<3) == [])
        #expect(Self.push(&ledger, other, 0..<1, branch: 1) == [])
        #expect(ledger.waitingPages(of: nil) == 3 && ledger.waitingPages(of: 7) == 3 && ledger.waitingPages(of: 8) == 0)
        #expect(Self.encode(&ledger, Self.key(0)) == nil, "it waits")
        #expect(!ledger.isPending(Self.key(0)))
        #expect(ledger.takeWaiting(of: 8) == nil)
        #expect(ledger.takeWaiting() == Self.key(0) && ledger.isPending(Self.key(0)))
        #expect(Self.encode(&ledger, Self.key(0))?.isEmpty == true)
        #expect(ledger.takeWaiting(of: 7) == Self.key(1))
        // The last one is in the window; that of the other session waits for a quiet time as well as for pressure.
        #expect(ledger.takeWaiting() == Self.key(0, branch: 1))
        #expect(ledger.takeWaiting() == nil && ledger.takeIdle() == nil)
    }

    @Test func onlyPagesThatAreCodedWhenItIsQuietAreTakenThen() {
        var ledger = Ledger()
        ledger.code = .underPressure
        let silent = Self.session(&ledger, Self.policy(nil))
        let idle = Self.session(&ledger, Self.policy(.idle))
        #expect(Self.push(&ledger, silent, 0..<1) + Self.push(&ledger, idle, 1..<3) == [])
        #expect(ledger.takeIdle() == Self.key(1) && ledger.takeIdle() == Self.key(2) && ledger.takeIdle() == nil)
        #expect(ledger.takeWaiting() == Self.key(0))
    }

    /// The soonest counts of all who rely on a page, whenever it comes to that.
    @Test func aSessionThatWantsItAtOnceHasAPageCodedThatWaits() {
        var ledger = Ledger()
        let patient = Self.session(&ledger, Self.policy(.underPressure))
        #expect(Self.push(&ledger, patient, 0..<2) == [])
        let hasty = Self.session(&ledger, Self.policy(.atOnce))
        #expect(Self.push(&ledger, hasty, 0..<1, coded: false) == [Self.key(0)])
        #expect(ledger.close(hasty) == [])
        #expect(ledger.takeWaiting() == Self.key(1))
        // What a session wanted that is over goes on.
        var other = Ledger()
        let (first, second) = (
            Self.session(&other, Self.policy(.underPressure, window: 64)), Self.session(&other, Self.policy(.atOnce))
        )
        #expect(Self.push(&other, first, 0..<1) == [] && Self.push(&other, second, 0..<1, coded: false) == [])
        #expect(other.close(second) == [] && other.close(first) == [Self.key(0)])
    }

    @Test func aWindowTakesAPageBackThatWaits() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(.underPressure))
        #expect(Self.push(&ledger, id, 0..<2) == [])
        let near = Self.session(&ledger, Self.policy(.atOnce, window: 16))
        #expect(Self.push(&ledger, near, 0..<1, coded: false) == [])
        #expect(ledger.takeWaiting() == Self.key(1))
        #expect(ledger.takeWaiting() == nil)
        #expect(ledger.close(near) == [Self.key(0)])
    }

    @Test func anotherPolicyDecidesAnew() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(.underPressure))
        #expect(Self.push(&ledger, id, 0..<2) == [])
        #expect(try Self.change(&ledger, id, Self.policy(.idle)).ready == [])
        #expect(ledger.takeIdle() == Self.key(0))
        #expect(try Self.change(&ledger, id, Self.policy(.atOnce)).ready == [Self.key(1)])
        #expect(ledger.waitingPages(of: nil) == 0)
    }

    @Test func ofTheNamedPagesThoseThatWaitAreTaken() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(.underPressure))
        _ = Self.push(&ledger, id, 0..<4)
        #expect(ledger.takeWaiting(among: [Self.key(2), Self.key(1), Self.key(9)]) == [Self.key(1), Self.key(2)])
        #expect(ledger.takeWaiting(among: nil) == [Self.key(0), Self.key(3)])
        #expect(ledger.takeWaiting() == nil)
    }

    @Test func pagesOfSessionsThatAreOverWaitOn() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(.underPressure, window: 16))
        _ = Self.push(&ledger, id, 0..<2)
        #expect(ledger.unusedWaiting == [])
        #expect(ledger.close(id) == [])
        #expect(Set(ledger.unusedWaiting) == [Self.key(0), Self.key(1)])
        #expect(ledger.takeWaiting() == Self.key(0) && ledger.takeWaiting() == Self.key(1))
        // The window of what is over stays exact.
        #expect(Self.encode(&ledger, Self.key(0))?.isEmpty == true)
        #expect(Self.encode(&ledger, Self.key(1))?.count == 16)
        #expect(ledger.pages.isEmpty)
    }

    /// Pages come and go, and what they leave behind in the order does not pile up.
    @Test func placesOfPagesThatAreGoneAreForgotten() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(.idle))
        for page in 0..<5000 {
            _ = Self.push(&ledger, id, page..<page + 1)
            ledger.drop([Self.key(UInt64(page))])
            #expect(ledger.placesHeld <= 1025)
        }
        _ = Self.push(&ledger, id, 7000..<7001)
        #expect(ledger.takeIdle() == Self.key(7000) && ledger.takeWaiting() == nil)
    }
}
