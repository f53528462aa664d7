import KVTCCodec
import KVTCSystem

/// Gives the cluster the profiles that this machine has, and takes those that it lacks, again and again on a thread of its own.
///
/// A profile that was here once is not taken again until the next start, so that one can be let go.
final class ProfileExchange: Sendable {
    /// The profiles that are here, by the names of their files.
    typealias Loaded = @Sendable () -> [(name: String, profile: Profile)]
    /// Keeps a profile of another machine under a name that none here has.
    typealias Take = @Sendable (_ name: String, _ profile: Profile) -> Void

    /// Profiles of a fleet; what the index has beyond is not looked at.
    private static let most = 4096
    /// Parts that are under way at a time, and of which it is asked at a time whether they are there.
    private static let window = 8
    private static let asked = 256

    private struct State {
        var isClosing = false
        var rounds = 0
    }

    private let state = Monitor(State())
    private let thread = Monitor<Thread?>(nil)
    private let settings: FleetSettings
    private let servers: any FleetServers
    private let budget: WriteBudget
    private let tally: Tally
    private let names: ProfileNames
    private let loaded: Loaded
    private let take: Take
    private let log: @Sendable (FleetEvent) -> Void

    init(
        _ settings: FleetSettings, servers: any FleetServers, budget: WriteBudget, tally: Tally,
        loaded: @escaping Loaded, take: @escaping Take, log: @escaping @Sendable (FleetEvent) -> Void
    ) {
        (self.settings, self.servers, self.budget, self.tally) = (settings, servers, budget, tally)
        (self.loaded, self.take, self.log) = (loaded, take, log)
        names = ProfileNames(settings)
    }

    func start() throws(SystemError) {
        let started = try Thread.start(name: "kvtc-profiles") { [self] in
            Thread.giveWay()
            var (known, interval) = (Set<ProfileID>(), settings.profileIntervals.lowerBound)
            while !isClosing {
                round(&known)
                state.update { $0.rounds += 1 }
                _ = state.wait(until: MonotonicClock.nanoseconds + interval) { $0.isClosing ? true : nil }
                interval = min(2 * interval, settings.profileIntervals.upperBound)
            }
        }
        thread.update { $0 = started }
    }

    func beginClosing() { state.update { $0.isClosing = true } }

    /// Waits for its thread.
    func close() {
        beginClosing()
        thread.update { thread -> Thread? in
            defer { thread = nil }
            return thread
        }?.join()
    }

    /// Waits for rounds to end, in tests.
    func wait(rounds: Int) { _ = state.wait { $0.rounds >= rounds ? true : nil } }

    private var isClosing: Bool { state.withLock { $0.isClosing } }

    // MARK: A round

    /// - Parameter known: profiles that are here, were, or can't be used.
    private func round(_ known: inout Set<ProfileID>) {
        guard let entries = entries() else { return }
        var here = loaded()
        known.formUnion(here.map(\.profile.id))
        for entry in entries.sorted(by: { $0.name < $1.name }) where !known.contains(entry.id) && !isClosing {
            do throws(CodecError) {
                guard let profile = try bring(entry) else { continue }
                known.insert(entry.id)
                let name = Self.name(entry, beside: here.map(\.name))
                take(name, profile)
                here.append((name, profile))
                tally.count { $0.profilesTaken += 1 }
                log(.profileTaken(name: name, id: "\(entry.id)"))
            } catch {
                known.insert(entry.id)
                log(.profileRefused(name: entry.name, reason: "\(error)"))
            }
        }
        guard settings.writes else { return }
        let published = Set(entries.map(\.id))
        for (name, profile) in here where !isClosing {
            let entry = ProfileEntry(
                id: profile.id, name: name, bytes: profile.byteCount, chunkBytes: settings.profileChunkBytes)
            guard publish(profile, entry) else { return }
            if !published.contains(profile.id) { enter(entry) }
        }
    }

    /// Nil when the servers do not say.
    private func entries() -> [ProfileEntry]? {
        let index = names.index
        guard case .array(let fields)? = answers([RedisCommand([Array("HGETALL".utf8), index], key: 1)])?[0] else {
            return nil
        }
        let pairs = stride(from: 0, to: min(fields.count - 1, 2 * Self.most), by: 2)
        return pairs.compactMap { at in
            guard let field = fields[at].bytes, let value = fields[at + 1].bytes else { return nil }
            return open(value, names.entryKey(field: field), bytes: value.count - SealedBytes.overhead)
                .flatMap { ProfileEntry($0) }.flatMap { names.field($0.id) == field ? $0 : nil }
        }
    }

    private func enter(_ entry: ProfileEntry) {
        let field = names.field(entry.id)
        let value = entry.encoded.withUnsafeBytes {
            SealedBytes.seal($0, key: names.entryKey(field: field), encrypts: settings.encrypts)
        }
        _ = answers([RedisCommand([Array("HSET".utf8), names.index, field, value], key: 1, lane: .store)])
    }

    /// A name that no profile here has: its own, or one with the first digits of its id.
    static func name(_ entry: ProfileEntry, beside others: [String]) -> String {
        guard others.contains(entry.name) else { return entry.name }
        let end = entry.name.firstIndex(of: ".") ?? entry.name.endIndex
        return entry.name[..<end] + "-" + "\(entry.id)".prefix(8) + entry.name[end...]
    }

    // MARK: Parts

    /// A profile, verified; nil when not all of it is there now.
    private func bring(_ entry: ProfileEntry) throws(CodecError) -> Profile? {
        var isWhole = true
        let file = try PrivateBytes(count: entry.bytes) { target in
            for first in stride(from: 0, to: entry.chunks, by: Self.window) where isWhole {
                let numbers = first..<min(first + Self.window, entry.chunks)
                let chunks = numbers.map { names.chunk(entry.id, $0) }
                guard let values = answers(chunks.map { .get($0.name) }) else { return isWhole = false }
                for (number, (chunk, value)) in zip(numbers, zip(chunks, values)) {
                    let part = UnsafeMutableRawBufferPointer(rebasing: target[entry.range(number)])
                    isWhole = isWhole && value.bytes.map { open($0, chunk, into: part) } == true
                }
            }
        }
        guard isWhole else { return nil }
        let profile = try Profile(file: file)
        guard profile.id == entry.id else { throw .corrupt("its SHA-256 is \(profile.id), not \(entry.id)") }
        return profile
    }

    private func open(_ value: [UInt8], _ chunk: PageName, into part: UnsafeMutableRawBufferPointer) -> Bool {
        do throws(SharedValue.Fault) {
            try SealedBytes.open(value, key: chunk.key, into: part)
            return true
        } catch {
            tally.count { $0.count(error) }
            if error != .newer { servers.removeDamaged(chunk.name) }
            return false
        }
    }

    private func open(_ value: [UInt8], _ key: [UInt8], bytes: Int) -> [UInt8]? {
        guard bytes > 0 else { return nil }
        var content = [UInt8](repeating: 0, count: bytes)
        let fault = content.withUnsafeMutableBytes { target -> SharedValue.Fault? in
            do throws(SharedValue.Fault) {
                try SealedBytes.open(value, key: key, into: target)
                return nil
            } catch { return error }
        }
        if let fault { tally.count { $0.count(fault) } }
        return fault == nil ? content : nil
    }

    /// Has all parts be there; false when that can't be known or done now.
    private func publish(_ profile: Profile, _ entry: ProfileEntry) -> Bool {
        for first in stride(from: 0, to: entry.chunks, by: Self.asked) {
            let numbers = Array(first..<min(first + Self.asked, entry.chunks))
            guard let found = answers(numbers.map { .touch(names.chunk(entry.id, $0).name) }) else { return false }
            let missing = zip(numbers, found).filter { $1.integer != 1 }.map(\.0)
            for start in stride(from: 0, to: missing.count, by: Self.window) {
                let window = missing[start..<min(start + Self.window, missing.count)]
                guard write(profile, entry, window) else { return false }
            }
        }
        return true
    }

    private func write(_ profile: Profile, _ entry: ProfileEntry, _ numbers: ArraySlice<Int>) -> Bool {
        let bytes = numbers.reduce(0) { $0 + entry.range($1).count + SealedBytes.overhead }
        guard budget.wait(bytes, { end in state.wait(until: end) { $0.isClosing ? true : nil } ?? false }) else {
            return false
        }
        let commands = numbers.map { number in
            let chunk = names.chunk(entry.id, number)
            let part = UnsafeRawBufferPointer(rebasing: profile.file.bytes[entry.range(number)])
            return RedisCommand.set(
                chunk.name, SealedBytes.seal(part, key: chunk.key, encrypts: settings.encrypts))
        }
        guard answers(commands) != nil else { return false }
        tally.count {
            $0.profilePartsWritten += UInt64(numbers.count)
            $0.writtenBytes += UInt64(bytes)
        }
        return true
    }

    /// All answers, or nil.
    private func answers(_ commands: [RedisCommand]) -> [RESPValue]? {
        guard !isClosing else { return nil }
        var values: [RESPValue] = []
        for result in servers.exchange(commands, milliseconds: settings.behindMilliseconds) {
            switch result {
            case .success(let value): values.append(value)
            case .failure(let fault): tally.count { $0.count(fault) }
            }
        }
        return values.count == commands.count ? values : nil
    }
}
