import Foundation
import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// A disk that fails, one call at a time.
@Suite struct FaultTests {
    private func put(_ store: Store, _ n: Int) -> PutOutcome {
        store.put(key(n), bytes: page(n, bytes: 4000), attributes: PageAttributes())
    }

    @Test(arguments: [ENOSPC, EIO, EDQUOT]) func failingWritesLoseNothingAndRecover(code: Int32) throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        for n in 0..<6 { #expect(put(store, n) == .stored) }
        device.setFault { _, operation in operation == "pwrite" ? .partial(code) : nil }
        for n in 6..<10 { #expect(put(store, n) == .full) }
        #expect(throws: StoreError.self) { try store.flush() }
        let statistics = store.statistics
        #expect(statistics.state != .ready && statistics.ioErrors > 0 && statistics.dropped == 0)
        #expect(statistics.diskUsed <= 64 << 10 && statistics.pages == 6)
        for n in 0..<6 { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
        // Removal works, and reaches the disk when it can.
        #expect(store.remove(key(0)))
        device.setFault { _, _ in nil }
        for n in 6..<9 { #expect(put(store, n) == .stored) }
        #expect(store.statistics.state == .ready)
        try store.flush()
        let again = try Store.open(.memory(device.afterKill()))
        for n in 1..<9 { #expect(again.bytes(key(n)) == page(n, bytes: 4000)) }
        #expect(again.residence(key(0)) == .absent)
    }

    /// A write that reports failure may have reached the disk all the same; a removal must cover that too.
    @Test func removedPageDoesNotComeBackFromAFailedWrite() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device, segment: 16 << 10))
        for n in 0..<2 { #expect(put(store, n) == .stored) }
        #expect(try store.evictToDisk([key(0)]) == 1)
        device.setFault { _, operation in
            operation == "pwrite" ? .landed(EIO) : operation == "ftruncate" ? .error(EIO) : nil
        }
        #expect(throws: StoreError.self) { try store.evictToDisk([key(1)]) }
        #expect(store.residence(key(1)) == .ram)
        device.setFault { _, _ in nil }
        let landed = try Store.open(.memory(device.afterKill(), segment: 16 << 10))
        #expect(landed.residence(key(1)) == .disk)
        #expect(store.remove(key(1)))
        let again = try Store.open(.memory(device.afterKill(), segment: 16 << 10))
        #expect(again.residence(key(1)) == .absent && again.bytes(key(0)) == page(0, bytes: 4000))
    }

    @Test func shortTransfersAreCompleted() throws {
        let device = MemoryDevice()
        device.setFault { _, operation in operation == "pwrite" || operation == "pread" ? .short : nil }
        let store = try Store.open(.memory(device))
        for n in 0..<8 { #expect(put(store, n) == .stored) }
        try store.flush()
        for n in 0..<8 { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
        #expect(store.statistics.ioErrors == 0)
        try store.close()
        let again = try Store.open(.memory(device))
        for n in 0..<8 { #expect(again.bytes(key(n)) == page(n, bytes: 4000)) }
    }

    /// The room of the oldest segment is needed, but the device does not deliver a pinned page in it: the disk takes no more, says
    /// so, and goes on when it delivers the page again or the page is removed.
    @Test(arguments: [false, true]) func aPinnedPageThatCannotBeReadKeepsItsSegment(isRemoved: Bool) throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        #expect(store.put(key(0), bytes: page(0, bytes: 4000), attributes: PageAttributes(pinned: true)) == .stored)
        #expect(try store.evictToDisk([key(0)]) == 1)
        device.setFault { _, operation in operation == "pread" ? .error(EIO) : nil }
        var next = 1
        while next < 100, put(store, next) == .stored { next += 1 }
        guard case .degraded(let why) = store.statistics.state else {
            Issue.record("\(store.statistics.state) after \(next) pages")
            return
        }
        #expect(why.contains("pread") && store.residence(key(0)) == .disk)
        if isRemoved { #expect(store.remove(key(0))) } else { device.setFault { _, _ in nil } }
        store.heal()
        #expect(store.statistics.state == .ready && put(store, next) == .stored)
        if !isRemoved { #expect(store.bytes(key(0)) == page(0, bytes: 4000)) }
    }

    @Test func failedReadIsAMissAndThePageStays() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        for n in 0..<6 { #expect(put(store, n) == .stored) }
        device.setFault { _, operation in operation == "pread" ? .error(EIO) : nil }
        #expect(store.outcome(key(0)) == .miss && !store.prefetch(key(1)))
        #expect(store.residence(key(0)) == .disk && store.statistics.ioErrors == 2 && store.statistics.corrupt == 0)
        device.setFault { _, _ in nil }
        #expect(store.bytes(key(0)) == page(0, bytes: 4000))
    }

    /// After a failed sync the next one "succeeds" on this device without saving anything, as on Linux.
    @Test func failedSyncIsNotRepeated() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        for n in 0..<3 { #expect(put(store, n) == .stored) }
        device.setFault { _, operation in operation == "fdatasync" ? .error(EIO) : nil }
        #expect(throws: StoreError.self) { try store.flush() }
        #expect(store.statistics.state != .ready && store.statistics.dirtyPages == 3)
        device.setFault { _, _ in nil }
        #expect(try store.flush().pages == 3)
        #expect(store.statistics.state == .ready)
        for seed in 1...10 as ClosedRange<UInt64> {
            let again = try Store.open(.memory(device.afterPowerCut(seed: seed)))
            for n in 0..<3 { #expect(again.bytes(key(n)) == page(n, bytes: 4000), "seed \(seed)") }
        }
    }

    /// Pages whose only copy is in a segment that could not be synced are written again by the next flush.
    @Test func pagesOfAnAbandonedSegmentAreRescued() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device, segment: 16 << 10))
        for n in 0..<2 { #expect(put(store, n) == .stored) }
        #expect(try store.evictToDisk([key(0), key(1)]) == 2)
        device.setFault { _, operation in operation == "fdatasync" ? .error(EIO) : nil }
        #expect(store.remove(key(1)))
        #expect(throws: StoreError.self) { try store.flush() }
        #expect(store.bytes(key(0)) == page(0, bytes: 4000))
        device.setFault { _, _ in nil }
        #expect(try store.evictToDisk([key(0)]) == 1)
        try store.flush()
        for seed in 1...10 as ClosedRange<UInt64> {
            let again = try Store.open(.memory(device.afterPowerCut(seed: seed)))
            #expect(again.bytes(key(0)) == page(0, bytes: 4000), "seed \(seed)")
            #expect(again.residence(key(1)) == .absent, "seed \(seed)")
        }
    }

    @Test func failingOpenIsAnErrorOrAWorkingStore() throws {
        let origin = MemoryDevice()
        do {
            let store = try Store.open(.memory(origin))
            for n in 0..<8 { #expect(put(store, n) == .stored) }
            try store.flush()
        }
        for fault in [Fault.error(EIO), .error(EMFILE), .error(ENOSPC)] {
            for failing in 0..<1000 {
                let device = origin.afterKill()
                device.setFault { number, _ in number == failing ? fault : nil }
                do {
                    let store = try Store.open(.memory(device))
                    for n in 0..<8 {
                        if let bytes = store.bytes(key(n)) { #expect(bytes == page(n, bytes: 4000)) }
                    }
                    #expect(put(store, 20) == .stored)
                    if device.calls <= failing { break }
                } catch {
                    guard case .io = error else {
                        Issue.record("\(error)")
                        continue
                    }
                }
                #expect(failing < 999)
            }
        }
    }

    /// The page was removed and came back because the device did not deliver the removal; a flush answered for it then. When the
    /// device delivers the removal again, it must not count any more. Every read of the start fails once.
    @Test func aRemovalThatWasNotReadDoesNotUndoALaterFlush() throws {
        let origin = MemoryDevice()
        do {
            let store = try Store.open(.memory(origin))
            for n in 0..<4 { #expect(put(store, n) == .stored) }
            try store.flush()
            #expect(store.remove([key(1), key(2)]) == 2)
            try store.flush()
        }
        var failing = 0
        var returned = 0
        while true {
            let device = origin.afterKill()
            device.setFault { [failing] number, operation in
                number == failing && operation == "pread" ? .error(EIO) : nil
            }
            let store = try Store.open(.memory(device))
            if device.calls <= failing { break }
            for n in 1..<3 where store.residence(key(n)) != .absent { returned += 1 }
            for n in 0..<3 { #expect([.stored, .present].contains(put(store, n))) }
            // Nothing was found of it, perhaps; it must not come back either.
            _ = store.remove(key(3))
            try store.flush()
            for next in [device.afterKill()] + (1...4).map({ device.afterPowerCut(seed: $0) }) {
                let again = try Store.open(.memory(next))
                for n in 0..<3 { #expect(again.bytes(key(n)) == page(n, bytes: 4000), "page \(n), read \(failing)") }
                #expect(again.residence(key(3)) == .absent, "read \(failing)")
            }
            failing += 1
        }
        #expect(returned > 0 && failing > 10)
    }

    /// A start reads removals in a segment of which it cannot read all, and flushes. They must not be undone when a later start
    /// reads everything, nor touch the pages behind them that were not read. Every read of the start fails once.
    @Test(arguments: [false, true]) func aRemovalThatWasReadIsNotUndone(isOfTenant: Bool) throws {
        let origin = MemoryDevice()
        do {
            let store = try Store.open(.memory(origin, disk: 256 << 10, segment: 64 << 10))
            for n in 0..<6 { #expect(put(store, n) == .stored) }
            try store.flush()
            #expect(isOfTenant ? store.removeAll(tenant: 7) == 6 : store.remove((1..<6).map { key($0) }) == 5)
            for n in 0..<3 where isOfTenant || n > 0 { #expect(put(store, n) == .stored) }
            try store.flush()
        }
        var undone = 0
        for failing in 0..<60 {
            let device = origin.afterKill()
            device.setFault { number, operation in number == failing && operation == "pread" ? .error(EIO) : nil }
            guard let store = try? Store.open(.memory(device, disk: 256 << 10, segment: 64 << 10)) else { continue }
            let returned = (3..<6).filter { store.residence(key($0)) != .absent }
            undone += returned.count
            try store.flush()
            for next in [device.afterKill()] + (1...4).map({ device.afterPowerCut(seed: $0) }) {
                let again = try Store.open(.memory(next, disk: 256 << 10, segment: 64 << 10))
                for n in 0..<3 { #expect(again.bytes(key(n)) == page(n, bytes: 4000), "page \(n), read \(failing)") }
                let there = (3..<6).filter { again.residence(key($0)) != .absent }
                #expect(there == returned, "read \(failing)")
            }
        }
        #expect(undone > 0)
    }

    /// A start cannot read some pages; everything of their tenant is removed then. They must not be there when a later start reads
    /// everything, other than pages put since and those of another tenant.
    @Test func removingEverythingReachesWhatCouldNotBeRead() throws {
        let origin = MemoryDevice()
        do {
            let store = try Store.open(.memory(origin))
            for n in 0..<6 { #expect(put(store, n) == .stored) }
            #expect(store.put(key(9, tenant: 8), bytes: page(9, bytes: 400), attributes: PageAttributes()) == .stored)
            try store.flush()
        }
        for failing in 0..<40 {
            let device = origin.afterKill()
            device.setFault { number, operation in number == failing && operation == "pread" ? .error(EIO) : nil }
            guard let store = try? Store.open(.memory(device)) else { continue }
            _ = store.removeAll(tenant: 7)
            #expect(put(store, 1) == .stored)
            try store.flush()
            for next in [device.afterKill()] + (1...4).map({ device.afterPowerCut(seed: $0) }) {
                let again = try Store.open(.memory(next))
                #expect(again.keys(tenant: 7) == [key(1)], "read \(failing)")
                #expect(again.bytes(key(1)) == page(1, bytes: 4000))
                #expect(again.bytes(key(9, tenant: 8)) == page(9, bytes: 400), "read \(failing)")
            }
        }
    }

    /// Pages were removed and put again. A start reads the removals but not the pages behind them: those must come to light
    /// again. Every read of the start fails once, and then every third one does.
    @Test func aPageThatWasNotReadOutlivesItsOlderRemoval() throws {
        let origin = MemoryDevice()
        do {
            let store = try Store.open(.memory(origin, disk: 256 << 10, segment: 64 << 10))
            for n in 0..<4 { #expect(put(store, n) == .stored) }
            try store.flush()
            #expect(store.remove([key(1), key(2)]) == 2)
            for n in 1..<3 { #expect(put(store, n) == .stored) }
            try store.flush()
        }
        var hidden = 0
        for failing in 0..<40 {
            let device = origin.afterKill()
            device.setFault { number, operation in
                let fails = failing < 30 ? number == failing : number % 3 == failing % 3 && number > failing / 3
                return fails && operation == "pread" ? .error(EIO) : nil
            }
            guard let store = try? Store.open(.memory(device, disk: 256 << 10, segment: 64 << 10)) else { continue }
            for n in 0..<4 where store.residence(key(n)) == .absent { hidden += 1 }
            device.setFault { _, _ in nil }
            try store.flush()
            for next in [device.afterKill()] + (1...4).map({ device.afterPowerCut(seed: $0) }) {
                let again = try Store.open(.memory(next, disk: 256 << 10, segment: 64 << 10))
                for n in 0..<4 { #expect(again.bytes(key(n)) == page(n, bytes: 4000), "page \(n), read \(failing)") }
            }
        }
        #expect(hidden > 0)
    }

    /// The process dies right after a sync that failed, before it could do anything about it. The next one reads from the cache
    /// what the disk does not have, and its own sync of that would report success.
    @Test func aSyncThatFailedInADeadProcessIsMadeUpFor() throws {
        let device = MemoryDevice()
        let left = Mutex<MemoryDevice?>(nil)
        let store = try Store.open(.memory(device, segment: 16 << 10))
        for n in 0..<3 { #expect(put(store, n) == .stored) }
        let failed = Atomic(false)
        device.setFault { _, operation in
            if failed.load(ordering: .relaxed) { left.withLock { $0 = $0 ?? device.copy() } }
            guard operation == "fdatasync" else { return nil }
            failed.store(true, ordering: .relaxed)
            return .error(EIO)
        }
        #expect(throws: StoreError.self) { try store.flush() }
        let found = left.withLock { $0 } ?? device.copy()
        let next = try Store.open(.memory(found))
        try next.flush()
        for n in 0..<3 { #expect(next.bytes(key(n)) == page(n, bytes: 4000)) }
        for seed in 1...10 as ClosedRange<UInt64> {
            let again = try Store.open(.memory(found.afterPowerCut(seed: seed)))
            for n in 0..<3 { #expect(again.bytes(key(n)) == page(n, bytes: 4000), "seed \(seed)") }
        }
    }
}
