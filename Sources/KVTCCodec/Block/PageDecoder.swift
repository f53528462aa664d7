import CKernels
import KVTCModel
import Synchronization

/// One block on its way back to a page, on the processor: checked and entropy-decoded once by ``open(_:isVerified:forEachChunk:)``, then
/// written layer by layer by ``write(layers:layout:into:)``. It keeps its memory from page to page, so that decoding allocates
/// nothing.
///
/// ``PageCodec/takeDecoder()`` hands one out.
public final class PageDecoder: @unchecked Sendable {
    // Justified: `open` is called by one thread before any calls `write`, and `write` only reads.
    let geometry: Geometry
    private let geometryHash: UInt64
    let profile: Profile?
    let kernels: KernelTable
    private let placements: PlacementCache

    /// Of the open block.
    public private(set) var header: BlockHeader?

    /// What the open block holds.
    package let page: DecodedPage
    /// Whether a chunk of it was not what was coded.
    private let isBroken = Atomic(false)

    // What the inverse transform sums, term after term, of each basis.
    var terms = Scratch<kv_term>()
    var termRanges: [Range<Int>]
    var quads = Scratch<Int8>()
    var sums = Scratch<Int32>()
    var angles = Scratch<Float>()
    /// Basis bytes that one column reads.
    package var digits: Int { termRanges.reduce(0) { $1.reduce($0) { $0 + Basis.quad * Int(terms.base[$1].quads) } } }

    init(geometry: Geometry, hash: UInt64, profile: Profile?, kernels: KernelTable, placements: PlacementCache) {
        self.geometry = geometry
        geometryHash = hash
        self.profile = profile
        self.kernels = kernels
        self.placements = placements
        page = DecodedPage(bases: profile?.bases.count ?? 0)
        termRanges = [Range<Int>](repeating: 0..<0, count: profile?.bases.count ?? 0)
    }

    /// Bytes that the decoder holds on to.
    public var byteCount: Int {
        page.byteCount + quads.byteCount + sums.byteCount + terms.byteCount + angles.byteCount
    }

    /// Calls a body with every number below a count, in any order, and returns when all calls have.
    public typealias ForEach = (_ count: Int, _ body: @Sendable (Int) -> Void) -> Void

    /// Checks a block and decodes its symbols and protected rows. The bytes must stay where they are until the last part
    /// is written.
    /// - Parameters:
    ///   - isVerified: whether the caller has a checksum of its own over the whole block.
    ///   - forEachChunk: may share the chunks that symbols are coded in among threads.
    /// - Throws: `corrupt` where any byte of the block is not as it was made, `mismatch` for another model's block.
    public func open(
        _ block: UnsafeRawBufferPointer, isVerified: Bool = false, forEachChunk: ForEach = PageDecoder.inTurn
    ) throws(CodecError) {
        let header = try check(block, isVerified: isVerified)
        try openExact(block, header)
        guard !header.mode.isExact else { return }
        try openCoded(block, header, forEachChunk: forEachChunk)
        guard page.codedCount > 0, let profile else { return }
        try arrange(profile, step: header.step, firstPosition: header.firstPosition)
    }

    /// Writes the page's tensors of `layers` in `layout` to `output`, which has exactly their size. Safe on several threads
    /// at once.
    public func write(
        layers: Range<Int>, layout: PageLayout, into output: UnsafeMutableRawBufferPointer
    ) throws(CodecError) {
        synthesise(try writeExact(layers, layout, output))
    }

    /// Writes the same layers of two pages, the other one open in a decoder of the same codec, sooner than one after the other:
    /// the digits of a basis come from memory once.
    public func write(
        layers: Range<Int>, layout: PageLayout, into output: UnsafeMutableRawBufferPointer,
        and other: PageDecoder, into otherOutput: UnsafeMutableRawBufferPointer
    ) throws(CodecError) {
        let (part, otherPart) = (
            try writeExact(layers, layout, output), try other.writeExact(layers, layout, otherOutput)
        )
        // The last page of a context may be shorter.
        if part.placement === otherPart.placement, profile === other.profile {
            synthesise(part, otherPart)
        } else {
            synthesise(part)
            other.synthesise(otherPart)
        }
    }

    /// Writes an open block of mode `raw` and takes the checksum of all its bytes on the way, in one pass through
    /// memory; the output is worth nothing unless the checksum is right.
    /// - Parameter pastCaches: whether the output is so large that its beginning would have left the caches by the time
    ///   it is read.
    public func writeRaw(
        layers: Range<Int>, layout: PageLayout, pastCaches: Bool = false, into output: UnsafeMutableRawBufferPointer
    ) throws(CodecError) -> UInt64 {
        let part = try prepare(layers, layout, output)
        let header = part.header
        guard header.mode == .raw, let exactRows = page.exactRows else { throw .invalid(field: "block", "is not raw") }
        let rowBytes = geometry.rowElements * header.element.bytes
        let sum = Checksum()
        let start = header.blockBytes - header.rawBytes
        sum.add(UnsafeRawBufferPointer(start: exactRows - start, count: start))
        part.placement.withRuns(rowBytes: rowBytes, bytes: header.element.bytes) { runs in
            for range in Checksum.stretches(of: header.tokens, rowBytes: rowBytes) {
                let source = exactRows + range.lowerBound * rowBytes
                sum.add(UnsafeRawBufferPointer(start: source, count: range.count * rowBytes))
                kv_scatter_rows(runs, source, nil, range.lowerBound, range.count, pastCaches ? 1 : 0, part.target)
            }
        }
        return sum.value
    }

    /// Where the layers lie in an open block of mode `raw`, if that is how the layout has them.
    public func stored(layers: Range<Int>, layout: PageLayout) -> Range<Int>? {
        guard let header, header.mode == .raw, header.element == layout.element else { return nil }
        let placement = placements.placement(
            .init(layout: layout, layers: layers, tokens: header.tokens), geometry, profile)
        guard placement.isCanonical, placement.bytes == header.rawBytes else { return nil }
        return header.blockBytes - header.rawBytes..<header.blockBytes
    }

    private func prepare(
        _ layers: Range<Int>, _ layout: PageLayout, _ output: UnsafeMutableRawBufferPointer
    ) throws(CodecError) -> Part {
        guard let header else { throw .invalid(field: "block", "none is open") }
        do throws(ModelError) { try layout.validate(for: geometry) } catch { throw CodecError(error) }
        guard layout.element == header.element else {
            throw .mismatch("the page holds \(header.element), the layout asks for \(layout.element)")
        }
        guard !layers.isEmpty, layers.lowerBound >= 0, layers.upperBound <= geometry.layers else {
            throw .invalid(field: "layers", "\(layers); the model has layers 0 to \(geometry.layers - 1)")
        }
        let placement = placements.placement(
            .init(layout: layout, layers: layers, tokens: header.tokens), geometry, profile)
        guard output.count == placement.bytes, let target = output.bindMemory(to: UInt8.self).baseAddress else {
            throw .invalid(field: "output", "\(output.count) bytes; these layers take \(placement.bytes)")
        }
        return Part(decoder: self, header: header, placement: placement, target: target)
    }

    // MARK: - Parts of opening, apart so that a benchmark can time them

    /// Header, checksums, and whether this is a block for this codec.
    package func check(
        _ block: UnsafeRawBufferPointer, isVerified: Bool = false
    ) throws(CodecError) -> BlockHeader {
        self.header = nil
        let header = try BlockHeader.parse(block, isVerified: isVerified)
        guard header.geometryHash == geometryHash, header.rowElements == geometry.rowElements else {
            throw .mismatch("the block is of another geometry")
        }
        if let needed = header.profile, needed != profile?.id {
            throw .mismatch("the block needs profile \(needed)")
        }
        self.header = header
        return header
    }

    /// The rows that are kept exact.
    package func openExact(_ block: UnsafeRawBufferPointer, _ header: BlockHeader) throws(CodecError) {
        try page.openExact(block, header)
    }

    /// On the caller's thread.
    public static func inTurn(_ count: Int, _ body: @Sendable (Int) -> Void) {
        for number in 0..<count { body(number) }
    }

    /// The codes of the other rows.
    package func openCoded(
        _ block: UnsafeRawBufferPointer, _ header: BlockHeader, forEachChunk: ForEach = PageDecoder.inTurn
    ) throws(CodecError) {
        guard let coder = try header.mode.rowCoder(profile: profile, kernels: kernels) else {
            throw .corrupt("exact mode \(header.mode) in a coded block")
        }
        page.chunkCount = 0
        try coder.decode(UnsafeRawBufferPointer(rebasing: block[header.codedSection]), header, into: page)
        isBroken.store(false, ordering: .relaxed)
        forEachChunk(page.chunkCount) { [page, kernels] chunk in
            if !page.decodeChunk(chunk, kernels) { isBroken.store(true, ordering: .relaxed) }
        }
        guard !isBroken.load(ordering: .relaxed) else { throw .corrupt("entropy-coded chunk") }
    }

    // MARK: - Writing

    private func writeExact(
        _ layers: Range<Int>, _ layout: PageLayout, _ output: UnsafeMutableRawBufferPointer
    ) throws(CodecError) -> Part {
        let part = try prepare(layers, layout, output)
        guard page.exactCount > 0 else { return part }
        let tokens = page.exactCount == part.header.tokens ? nil : page.exactTokens.base
        let bytes = part.header.element.bytes
        part.placement.withRuns(rowBytes: geometry.rowElements * bytes, bytes: bytes) {
            kv_scatter_rows($0, page.exactRows, tokens, 0, page.exactCount, 0, part.target)
        }
        return part
    }

    /// The other part has the same placement and profile: its terms meet a chunk's digits while they are near.
    private func synthesise(_ part: Part, _ other: Part? = nil) {
        guard let profile, page.codedCount > 0 || (other?.decoder.page.codedCount ?? 0) > 0 else { return }
        profile.inverseWeight.withUnsafeBufferPointer { weight in
            profile.mean.withUnsafeBufferPointer { mean in
                profile.rotation.stretches.withUnsafeBufferPointer { stretches in
                    part.placement.chunkRuns.withUnsafeBufferPointer { runs in
                        for chunk in part.placement.chunks {
                            part.synthesise(chunk, profile, weight, mean, stretches, runs)
                            other?.synthesise(chunk, profile, weight, mean, stretches, runs)
                        }
                    }
                }
            }
        }
    }
}

/// Where a page's tensors of some layers go.
private struct Part {
    let decoder: PageDecoder
    let header: BlockHeader
    let placement: PagePlacement
    let target: UnsafeMutablePointer<UInt8>

    /// Some columns of the rows that are coded.
    func synthesise(
        _ chunk: PagePlacement.Chunk, _ profile: Profile, _ weight: UnsafeBufferPointer<Float>,
        _ mean: UnsafeBufferPointer<Float>, _ stretches: UnsafeBufferPointer<kv_rotation>,
        _ runs: UnsafeBufferPointer<kv_run>
    ) {
        let page = decoder.page
        guard page.codedCount > 0 else { return }
        let basis = profile.bases[chunk.basis]
        let terms = decoder.termRanges[chunk.basis]
        var rows = kv_synthesis(
            kernels: decoder.kernels.pointer, inverse_weight: weight.baseAddress, mean: mean.baseAddress,
            angles: decoder.angles.base, angle_stride: profile.rotation.angleCount, tokens: page.codedTokens.base,
            rows: UInt32(page.codedCount), element: header.element.kernelCode, bytes: UInt8(header.element.bytes),
            output: target)
        var columns = kv_chunk(
            begin: UInt32(chunk.columns.lowerBound), end: UInt32(chunk.columns.upperBound),
            basis_begin: UInt32(chunk.basisOrigin), packed: basis.packed, quads: basis.quads,
            terms: decoder.terms.base + terms.lowerBound, term_count: terms.count,
            blocks: profile.inverseRoot.map { $0.entries + chunk.blocks.lowerBound }, block_count: chunk.blocks.count,
            rotations: stretches.baseAddress.map { $0 + chunk.rotations.lowerBound },
            rotation_count: chunk.rotations.count,
            runs: runs.baseAddress.map { $0 + chunk.runs.lowerBound }, run_count: chunk.runs.count)
        kv_synthesise(&rows, &columns)
    }
}
