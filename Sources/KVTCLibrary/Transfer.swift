import CKVTC
import KVTCClient
import KVTCProtocol

// Pages in and out, as many at a time as the arena has room for.
extension LibrarySession {
    /// Bytes of pages in one request without an arena.
    private static let inlineBytes = 4 << 20

    /// Pushes pages; `outcomes` has one a page, of which those that were not answered are left alone.
    func push(_ pages: UnsafeBufferPointer<kvtc_page>, _ outcomes: inout [UInt8]) throws(Failure) {
        var next = 0
        while next < pages.count {
            let begin = next
            let answered = try perform { (link) throws(ClientError) -> [PushOutcome] in
                next = try Self.batch(link, pages, from: begin)
                return try Self.push(link, pages[begin..<next])
            }
            guard answered.count == next - begin else {
                throw .client(.violation("\(answered.count) outcomes for \(next - begin) pages"))
            }
            for (index, outcome) in answered.enumerated() { outcomes[begin + index] = outcome.rawValue }
        }
    }

    /// Where the pages end that travel together; at least one does, and is refused by the daemon where it is too large.
    private static func batch(
        _ link: Link, _ pages: UnsafeBufferPointer<kvtc_page>, from begin: Int
    ) throws(ClientError) -> Int {
        let room = link.arena?.memory.byteCount ?? inlineBytes
        var (end, bytes) = (begin, 0)
        while end < pages.count {
            let (length, overflow) = Int(pages[end].tokens).multipliedReportingOverflow(by: link.session.tokenBytes)
            guard !overflow, end == begin || length <= room - bytes else { break }
            bytes += length
            end += 1
        }
        guard end > begin, link.arena == nil || bytes <= room else {
            throw .refused(
                WireError(
                    .tooLarge, field: "pages.tokens",
                    "page \(begin) has \(pages[begin].tokens) tokens; a page has \(link.session.pageTokens) at most"))
        }
        return end
    }

    private static func push(
        _ link: Link, _ pages: Slice<UnsafeBufferPointer<kvtc_page>>
    ) throws(ClientError) -> [PushOutcome] {
        var entries: [PushEntry] = []
        var inline: [UInt8] = []
        var offset = 0
        for page in pages {
            let length = Int(page.tokens) * link.session.tokenBytes
            guard let start = page.bytes else {
                throw .refused(WireError(.invalidField, field: "pages.bytes", "NULL"))
            }
            let bytes = UnsafeRawBufferPointer(start: start, count: length)
            if let arena = link.arena {
                guard arena.memory.write(bytes, offset: UInt64(offset)) else {
                    throw .violation("an arena that is smaller than it said")
                }
            } else {
                inline += bytes
            }
            entries.append(
                PushEntry(
                    key: PageKey(page.key), firstPosition: page.first_token, tokens: page.tokens,
                    offset: UInt64(offset),
                    length: UInt64(length)))
            offset += length
        }
        let request = PushRequest(
            session: link.session.number, arena: link.arena?.number ?? Wire.none, entries: entries, inline: inline[...])
        return try link.client.call(request).outcomes
    }

    /// Brings pages back; `outcomes` begins with a miss for each.
    func pull(
        _ keys: UnsafeBufferPointer<kvtc_key>, lease: UInt64, layerStep: UInt16,
        _ place: (Int, PullPart, UnsafeRawBufferPointer) -> Void,
        _ outcomes: inout [UInt8]
    ) throws(Failure) {
        var next = 0
        while next < keys.count {
            let begin = next
            let found = try perform { (link) throws(ClientError) -> [UInt8] in
                let pageBytes = link.session.tokenBytes * link.session.pageTokens
                let room = link.arena?.memory.byteCount ?? Self.inlineBytes
                next = min(keys.count, begin + max(1, room / pageBytes))
                return try Self.pull(link, keys[begin..<next], lease, layerStep) { place(begin + $0, $1, $2) }
            }
            outcomes.replaceSubrange(begin..<next, with: found)
        }
    }

    private static func pull(
        _ link: Link, _ keys: Slice<UnsafeBufferPointer<kvtc_key>>, _ lease: UInt64, _ layerStep: UInt16,
        _ place: (Int, PullPart, UnsafeRawBufferPointer) -> Void
    ) throws(ClientError) -> [UInt8] {
        let capacity = UInt64(link.session.tokenBytes * link.session.pageTokens)
        let entries = keys.enumerated().map {
            PullEntry(
                key: PageKey($0.element), offset: link.arena == nil ? 0 : UInt64($0.offset) * capacity,
                capacity: capacity)
        }
        var arrived = [UInt64](repeating: 0, count: keys.count)
        var outcomes = [UInt8](repeating: UInt8(KVTC_HIT), count: keys.count)
        var astray = false
        let request = PullRequest(
            session: link.session.number, lease: lease, arena: link.arena?.number ?? Wire.none, layerStep: layerStep,
            entries: entries)
        _ = try link.client.pull(request) { part in
            let entry = Int(part.entry)
            guard entry < keys.count, part.length <= capacity else { return astray = true }
            guard part.outcome == .hit else { return outcomes[entry] = part.outcome.rawValue }
            let isInside = Self.withBytes(of: part, link.arena) { place(entry, part, $0) }
            if isInside { arrived[entry] += part.length } else { astray = true }
        }
        guard !astray else { throw .violation("a part outside the arena or of no page asked for") }
        // The memory of an arena goes with its connection: what was placed may have been zeros.
        if link.arena != nil { try link.client.requireOpen() }
        for entry in outcomes.indices where outcomes[entry] == UInt8(KVTC_HIT) && arrived[entry] != capacity {
            outcomes[entry] = UInt8(KVTC_MISS)
        }
        return outcomes
    }

    /// False where the part lies outside of the arena.
    private static func withBytes(of part: PullPart, _ arena: ClientArena?, _ body: (UnsafeRawBufferPointer) -> Void)
        -> Bool
    {
        guard let arena else {
            part.inline.withUnsafeBytes(body)
            return part.inline.count == Int(part.length)
        }
        return arena.memory.withWritable(offset: part.offset, length: part.length) { body(UnsafeRawBufferPointer($0)) }
            != nil
    }
}

extension PageKey {
    init(_ key: kvtc_key) { self = withUnsafeBytes(of: key) { PageKey(Array($0))! } }
}
