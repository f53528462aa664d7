import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCStore
import TestSupport

@testable import KVTCDaemon

// Pages come in as blocks that a worker made, and go out as they are stored.
extension SessionSimulation {
    /// A page of a stream, with what the policy protects exact in it.
    mutating func pushBlock() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return try openSession() }
        let next = sessions[at].pages.last.map { $0.isShort ? $0.index : $0.index + 1 } ?? 0
        var page = PageID(
            tenant: sessions[at].caller.tenant, model: sessions[at].model, index: next, branch: sessions[at].branch,
            isShort: chance(5))
        // One that others have pushed, or there is some other way for the stream to go on.
        let others = names.filter { $0.tenant == page.tenant && $0.model == page.model }
        if chance(2), let other = others.randomElement(using: &generator) {
            page = other
        } else if chance(4) {
            page.index = .random(in: 0...next, using: &generator)
            page.branch = .random(in: 0..<3, using: &generator)
        }
        guard page.index < Self.pages else { return }
        sessions[at].branch = page.branch
        let session = sessions[at]
        var after = session
        _ = after.place(page)
        var rows = RowSet(count: page.tokens)
        for row in 0..<page.tokens where after.protects(page.first + row) || chance(3) { rows.insert(row) }
        let (block, exact) = try page.block(session.policy.mode, rows)
        let entry = PushEntry(
            key: page.key, firstPosition: UInt32(page.first), tokens: UInt32(page.tokens), offset: 0,
            length: UInt64(block.count))
        let request = PushRequest(session: session.id, arena: Wire.none, entries: [entry], inline: block[...])
        let outcome = try engine.pushBlocks(request, arena: nil, session.caller).outcomes[0]
        guard !plan.hasCrashed else {
            if let ends = end(of: session.policy) { known[page, default: Known(page)].setEnd(ends) }
            return
        }
        try note(page, exact, outcome, at)
        if outcome == .full {
            sessions[at].pages = (sessions[at].pages + (sessions[at].pages.contains(page) ? [] : [page])).sorted {
                ($0.first, $0.end) < ($1.first, $1.end)
            }
        }
        try follow(isFree: outcome == .full)
        narrow()
    }

    /// What the outcome says of a page.
    private mutating func note(_ page: PageID, _ exact: RowSet, _ outcome: PushOutcome, _ at: Int) throws {
        let isDisturbed = plan.total > faultsAtStart
        guard outcome != .full else { return try require(isDisturbed, "the block of \(page) finds no room") }
        var state = known[page] ?? Known(page)
        let isSure = state.isThere && !mayExpire(page)
        try require(outcome == .present || outcome == .stored, "the block of \(page) came to \(outcome) over \(state)")
        let ends = end(of: sessions[at].policy)
        if outcome == .stored {
            let keeps = (0..<page.tokens).allSatisfy { !state.exact[$0] || exact.contains($0) }
            try require(keeps || !isSure || isDisturbed, "the block of \(page) has less exact than \(state)")
            var now = Known(page)
            if isSure, state.isBad != nil { (now.retained, now.lasting) = (state.retained, state.lasting) }
            (now.end, now.earliestEnd) = (state.end, state.earliestEnd)
            now.exact = (0..<page.tokens).map { exact.contains($0) }
            state = now
        } else if !state.isThere {
            state.isBad = everBad.contains(page) ? nil : false
        }
        settle(page, state, end: ends, isSure: isSure, at)
    }
}

extension SessionSimulation.Model {
    private static let codecs = Dictionary(
        uniqueKeysWithValues: allCases.map { model in
            // The geometries are constants.
            (model, try! PageCodec(geometry: Geometry(tensors: model.tensors)))
        })

    var codec: PageCodec { Self.codecs[self]! }
}

extension SessionSimulation.PageID {
    private static let layout = PageLayout(element: .f16)

    /// A block of the page, and which of its rows are exact.
    func block(_ mode: Mode, _ protected: RowSet) throws -> ([UInt8], RowSet) {
        let wrapped = try bytes.withUnsafeBytes {
            try model.codec.wrap(page: $0, layout: Self.layout, tokens: tokens, firstPosition: first)
        }
        let block = try wrapped.withUnsafeBytes {
            try model.codec.encode(block: $0, mode: mode, quality: .ratio(1), protected: protected)
        }
        let header = try block.withUnsafeBytes { try BlockHeader.parse($0) }
        return (block, header.mode.isExact ? .full(tokens) : header.protected)
    }

    /// The page in a block that a pull gave.
    func decoded(_ block: [UInt8]) throws -> [UInt8] {
        let decoder = model.codec.takeDecoder()
        defer { model.codec.giveBack(decoder) }
        return try block.withUnsafeBytes { block in
            // Raw ones have no checksum of their own.
            try decoder.open(block, isVerified: true)
            var page = [UInt8](repeating: 0, count: tokens * Pages.tokenBytes)
            try page.withUnsafeMutableBytes {
                try decoder.write(layers: 0..<model.codec.geometry.layers, layout: Self.layout, into: $0)
            }
            return page
        }
    }
}
