import KVTCStore
import KVTCSystem
import TestSupport
import Testing

@testable import KVTCShared

@Suite struct WriteBehindTests {
    private let servers = PlayedServers()

    private func value(_ machine: Machine, _ key: StoreKey) -> (head: PageHead, block: [UInt8])? {
        let page = machine.tier.names.pages([key])[0]
        return servers.state.withLock { $0.values[page.name] }.flatMap { try? SharedValue.open($0, key: page.key) }
    }

    @Test func onlyCodedPagesTravel() throws {
        let machine = try Machine(servers)
        let lossless = PlayedPage(number: 2, mode: .lossless, distortion: 0)
        machine.push([key(1): PlayedPage(mode: .raw, distortion: 0), key(2): lossless])
        // One that is not there any more.
        machine.tier.offer([key(3)])
        machine.push([key(4): PlayedPage(number: 4)])
        machine.expect { $0.writtenPages == 2 }
        #expect(servers.count("SET") == 2)
        #expect(value(machine, key(2))?.block == lossless.block)
        #expect(value(machine, key(1)) == nil)
    }

    @Test func whatWaitsIsWrittenBeforeAnEndIfTheServersTakeIt() throws {
        let machine = try Machine(servers)
        machine.push(Dictionary(uniqueKeysWithValues: (1...200).map { (key($0), PlayedPage(number: $0)) }))
        machine.tier.remove([key(900)])
        machine.tier.finish(until: .max)
        #expect(machine.tier.statistics.writtenPages == 200 && machine.tier.statistics.removed == 1)
        machine.tier.finish(until: 0)
    }

    @Test func whatIsThereIsWrittenOverByABetterOneOnly() throws {
        let machine = try Machine(servers)
        machine.push([key(1): PlayedPage(distortion: 0.2)])
        machine.expect { $0.writtenPages == 1 }
        machine.push([key(1): PlayedPage(distortion: 0.3)])
        machine.expect { $0.known == 1 }
        machine.push([key(1): PlayedPage(distortion: 0.1, ttl: 60)])
        machine.expect { $0.writtenPages == 2 }
        #expect(value(machine, key(1))?.head.distortion == 0.1)
        // The same once more lives longer only.
        machine.tier.offer([key(1)])
        machine.expect { $0.known == 2 }
        servers.expect("PEXPIRE", 1)
        // A value that is none is no better.
        let name = machine.tier.names.pages([key(1)])[0].name
        servers.state.update { $0.values[name]![60] ^= 1 }
        machine.tier.offer([key(1)])
        machine.expect { $0.writtenPages == 3 }
        #expect(value(machine, key(1))?.block == PlayedPage(distortion: 0.1).block)
    }

    @Test func manyPagesAreWrittenInBatches() throws {
        let machine = try Machine(servers) { $0.encrypts = true }
        let pages = (0..<300).map { (key($0), PlayedPage(number: $0, bytes: 4_000)) }
        machine.push(Dictionary(uniqueKeysWithValues: pages))
        machine.expect { $0.writtenPages == 300 }
        #expect(pages.allSatisfy { value(machine, $0.0)?.block == $0.1.block })
        #expect(machine.tier.statistics.writtenBytes == 300 * UInt64(4_000 + 104 + SharedValue.overhead))
    }

    @Test func aFullClusterIsLeftAloneForAWhile() throws {
        let machine = try Machine(servers)
        servers.react { name, _ in name == "SET" ? .fail(.full) : .answer }
        machine.push([key(1): PlayedPage()])
        machine.expect { $0.heldBack.fault == 1 }
        #expect(machine.tier.statistics.pausedFor == .full)
        #expect(machine.tier.statistics.faults["full"] == 1)
        // What is there already can be read and removed.
        machine.tier.remove([key(5)])
        machine.expect { $0.removed == 1 }
        servers.react { _, _ in .answer }
        machine.push([key(2): PlayedPage(number: 2)])
        machine.expect { $0.writtenPages == 1 }
        _ = machine.events.wait { $0.count == 2 ? true : nil }
        #expect(machine.tier.statistics.pausedFor == nil)
        #expect(machine.events.withLock { $0[0] }.contains("no memory"))
    }

    @Test func pagesWaitWhileTheServersAreAway() throws {
        let machine = try Machine(servers)
        servers.react { _, _ in .fail(.open) }
        machine.push([key(1): PlayedPage(), key(2): PlayedPage(number: 2)])
        machine.tier.remove([key(3)])
        machine.expect { $0.faults["open"]! >= 3 }
        #expect(machine.tier.knownAbsences([key(3), key(4)]) == [true, false])
        servers.react { _, _ in .answer }
        machine.expect { $0.writtenPages == 2 && $0.removed == 1 }
        #expect(machine.tier.statistics.heldBack.fault == 0)
        #expect(machine.tier.statistics.waiting == 0)
        #expect(!machine.tier.knownAbsences([key(3)])[0])
    }

    @Test func aServerThatIsAwayHoldsUpNoOther() throws {
        let machine = try Machine(servers)
        let dead = machine.tier.names.pages([key(1)])[0].name
        servers.react { _, key in key == dead ? .fail(.unreachable) : .answer }
        machine.tier.remove([key(1)])
        machine.expect { $0.faults["unreachable"]! >= 1 }
        machine.push([key(1): PlayedPage(), key(2): PlayedPage(number: 2)])
        machine.expect { $0.writtenPages == 1 }
        #expect(value(machine, key(2)) != nil)
    }

    @Test func thePagesOfAQueueThatIsFullAreCounted() throws {
        let machine = try Machine(servers)
        servers.react { _, _ in .hold }
        machine.tier.offer([key(-1)])
        servers.expect("GETRANGE", 1)
        let many = (0..<WriteBehind.mostWaiting + 10).map { key($0) }
        machine.tier.offer(many)
        machine.tier.offer(many.suffix(10))
        #expect(machine.heldBack == 20)
        // A page that waits already is no second one.
        machine.tier.offer(Array(many.prefix(5)))
        #expect(machine.heldBack == 20)
        #expect(machine.tier.statistics.waiting == WriteBehind.mostWaiting)
    }

    @Test func removedPagesAreAbsentBeforeTheyAreRemoved() throws {
        let machine = try Machine(servers)
        machine.push([key(1): PlayedPage(), key(2): PlayedPage(number: 2)])
        machine.expect { $0.writtenPages == 2 }
        servers.react { name, _ in name == "UNLINK" || name == "GET" ? .hold : .answer }
        let outcome = Monitor<SharedOutcome?>(nil)
        machine.tier.fetch([key(1)]) { _, result in outcome.update { $0 = result } }
        servers.expect("GET", 1)
        machine.tier.remove([key(1)])
        #expect(machine.tier.ask([key(1), key(2)]).map { $0 == nil } == [true, false])
        #expect(machine.fetch([key(1)])[0].isAbsent)
        servers.release()
        // What was on its way is not had any more.
        let fetched = outcome.wait { $0 }!
        #expect(fetched.isAbsent)
        servers.react { _, _ in .answer }
        servers.release()
        machine.expect { $0.removed == 1 }
        #expect(value(machine, key(1)) == nil)
        // And may come back.
        machine.tier.offer([key(1)])
        machine.expect { $0.writtenPages == 3 }
        #expect(machine.fetch([key(1)])[0].block == PlayedPage().block)
    }

    @Test func theBudgetIsKept() {
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<50 {
            let rate = UInt64.random(in: 1...1_000_000, using: &generator)
            var bucket = TokenBucket(bytesPerSecond: rate, now: 5)
            var (now, taken, largest) = (UInt64(5), 0, 0)
            for _ in 0..<400 {
                let bytes = Int.random(in: 1...2_000_000, using: &generator)
                if bucket.take(bytes, at: now) {
                    taken += bytes
                    largest = max(largest, bytes)
                } else {
                    let delay = bucket.delay(at: now)
                    #expect(delay > 0)
                    now += Bool.random(using: &generator) ? delay : .random(in: 1...delay, using: &generator)
                }
                // The share of the time, of the second before, and one page.
                let most = (Double(now - 5) / 1e9 + 1) * Double(rate) + Double(largest) + 1
                #expect(Double(taken) <= most)
            }
        }
    }

    @Test func aBudgetHoldsPagesBack() throws {
        let machine = try Machine(servers) { $0.bytesPerSecond = 1 }
        machine.push([key(1): PlayedPage()])
        machine.expect { $0.writtenPages == 1 }
        machine.push([key(2): PlayedPage(number: 2)])
        _ = machine.tier.behind.state.wait { $0.isShort ? true : nil }
        machine.tier.offer((10..<10 + WriteBehind.mostWaiting + 7).map { key($0) })
        #expect(machine.tier.statistics.heldBack.budget == 7)
        machine.tier.close()
        #expect(servers.count("SET") == 1)
    }
}

@Suite struct AbsencesTests {
    @Test func whatIsRememberedIsTrueAndBounded() {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        var absences = Absences(nanoseconds: 1000)
        var last: [StoreKey: UInt64] = [:]
        var now: UInt64 = 1 << 40
        for _ in 0..<20_000 {
            now += .random(in: 0...40, using: &generator)
            let key = key(.random(in: 0..<50, using: &generator))
            switch Int.random(in: 0..<4, using: &generator) {
            case 0:
                absences.insert(key, at: now)
                last[key] = now
            case 1 where Bool.random(using: &generator):
                absences.remove(key)
                last[key] = nil
            default:
                let age = last[key].map { now - $0 }
                let isKnown = absences.contains(key, at: now)
                if isKnown { #expect(age.map { $0 <= 1000 } == true, "seed \(seed)") }
                if let age, age < 500 { #expect(isKnown, "seed \(seed)") }
            }
        }
        for number in 0..<3 * Absences.most { absences.insert(key(number), at: now) }
        #expect(absences.count <= 2 * Absences.most)
        let isKnown = absences.contains(key(3 * Absences.most - 1), at: now)
        #expect(isKnown)
    }

    @Test func withoutATimeNothingIsRemembered() {
        var absences = Absences(nanoseconds: 0)
        absences.insert(key(1), at: 5)
        let isKnown = absences.contains(key(1), at: 5)
        #expect(!isKnown)
    }
}
