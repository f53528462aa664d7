import CKernels
import KVTCModel

/// Pages in, blocks out, and back. A value without state of its own: safe to use from any number of threads.
///
/// A page enters with ``wrap(page:layout:tokens:firstPosition:)`` as an exact block; `encode` makes
/// the small block from that one; ``decode(block:layers:layout:into:)`` takes either.
public struct PageCodec: Sendable {
    /// The tensors of every page.
    public let geometry: Geometry
    /// What the `transform` and `kvtc` modes need.
    public let profile: Profile?
    let kernels: KernelTable
    /// Of the geometry, as blocks carry it.
    package let geometryHash: UInt64
    private let placements = PlacementCache()
    private let decoders = DecoderPool()
    let memories = CoderMemoryPool()

    /// A codec for pages of one geometry.
    /// - Throws: `mismatch` where the profile was calibrated for another geometry.
    public init(geometry: Geometry, profile: Profile? = nil) throws(CodecError) {
        try self.init(geometry: geometry, profile: profile, kernels: .best)
    }

    package init(geometry: Geometry, profile: Profile?, kernels: KernelTable) throws(CodecError) {
        geometryHash = geometry.hash
        if let profile, profile.geometry.hash != geometryHash {
            throw .mismatch("profile \(profile.id) is for another geometry (\(profile.model))")
        }
        self.geometry = geometry
        self.profile = profile
        self.kernels = kernels
    }

    /// Bytes of the block that ``wrap(page:layout:tokens:firstPosition:into:)`` makes.
    public func wrappedBytes(element: Element, tokens: Int) -> Int {
        BlockHeader.size + tokens * geometry.rowElements * element.bytes
    }

    /// The page as a block in `raw` mode: exact, self-describing, checksummed.
    /// - Parameter page: exactly the bytes of `tokens` tokens in `layout`.
    public func wrap(
        page: UnsafeRawBufferPointer, layout: PageLayout, tokens: Int, firstPosition: Int
    ) throws(CodecError) -> [UInt8] {
        let size = wrappedBytes(element: layout.element, tokens: max(0, min(tokens, 65536)))
        var failure: CodecError?
        let block = [UInt8](unsafeUninitializedCapacity: size) { buffer, initialised in
            do throws(CodecError) {
                let block = UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: size)
                _ = try wrap(page: page, layout: layout, tokens: tokens, firstPosition: firstPosition, into: block)
                BlockHeader.seal(block)
                initialised = size
            } catch { failure = error }
        }
        if let failure { throw failure }
        return block
    }

    /// The same into memory of ``wrappedBytes(element:tokens:)`` bytes, for those who keep a checksum of the whole block
    /// beside it: the block's own of its payload is 0, and read on its own the block counts as damaged. Each byte of
    /// `page` is read once, and copied before it is looked at.
    /// - Returns: whether all numbers are finite, and the XXH3-64 of the block.
    public func wrap(
        page: UnsafeRawBufferPointer, layout: PageLayout, tokens: Int, firstPosition: Int,
        into block: UnsafeMutableRawBufferPointer
    ) throws(CodecError) -> (isFinite: Bool, checksum: UInt64) {
        do throws(ModelError) { try layout.validate(for: geometry) } catch { throw CodecError(error) }
        guard (1...65536).contains(tokens) else { throw .invalid(field: "tokens", "\(tokens); 1 to 65536 are allowed") }
        guard (0...BlockHeader.largestPosition - tokens).contains(firstPosition) else {
            throw .invalid(field: "firstPosition", "\(firstPosition) is negative or too large")
        }
        let placement = placements.placement(
            .init(layout: layout, layers: 0..<geometry.layers, tokens: tokens), geometry, profile)
        guard page.count == placement.bytes else {
            throw .invalid(
                field: "page", "\(page.count) bytes; \(tokens) tokens of this layout take \(placement.bytes)")
        }
        guard block.count == BlockHeader.size + placement.bytes else {
            throw .invalid(
                field: "block", "\(block.count) bytes; the block takes \(BlockHeader.size + placement.bytes)")
        }
        let (bytes, rowBytes) = (layout.element.bytes, placement.bytes / tokens)
        let source = page.bindMemory(to: UInt8.self).baseAddress!
        let rows = block.bindMemory(to: UInt8.self).baseAddress! + BlockHeader.size
        var header = makeHeader(mode: .raw, element: layout.element, tokens: tokens, firstPosition: firstPosition)
        header.codedBytes = placement.bytes
        header.write(to: block, payloadChecksum: 0)
        let sum = Checksum()
        sum.add(UnsafeRawBufferPointer(rebasing: block[..<BlockHeader.size]))
        var isFinite = true
        memories.with { memory in
            placement.withRuns(rowBytes: rowBytes, bytes: bytes) { runs in
                for range in Checksum.stretches(of: tokens, rowBytes: rowBytes) {
                    let (size, count) = (range.count * rowBytes, range.count)
                    // Where it stays it is written past the caches, so it is looked at here, where it is in them.
                    let stretch = memory.stretch.reserve(size)
                    kv_gather_rows(runs, source, range.lowerBound, count, stretch)
                    sum.add(UnsafeRawBufferPointer(start: stretch, count: size))
                    isFinite =
                        isFinite && kv_all_finite(layout.element.kernelCode, stretch, count * geometry.rowElements) != 0
                    kv_copy_past_caches(rows + range.lowerBound * rowBytes, stretch, size)
                }
            }
        }
        return (isFinite, sum.value)
    }

    /// Codes an exact block. Rows that hold NaN or infinities are protected whatever the caller says; a block that would
    /// not get smaller than the lossless one is returned lossless.
    /// - Parameters:
    ///   - protected: rows to keep bit-identical.
    ///   - isVerified: whether the caller has a checksum of its own over the whole block.
    ///   - keepOutliers: whether rows whose keys or values are far stronger than any that was calibrated on are kept
    ///     bit-identical too, in the modes that have a profile.
    public func encode(
        block: UnsafeRawBufferPointer, isVerified: Bool = false, mode: Mode, quality: Quality, protected: RowSet,
        keepOutliers: Bool = true
    ) throws(CodecError) -> [UInt8] {
        let decoder = takeDecoder()
        defer { giveBack(decoder) }
        let source = try decoder.check(block, isVerified: isVerified)
        guard source.mode.isExact else { throw .invalid(field: "block", "is coded already (\(source.mode))") }
        guard protected.capacity == source.tokens else {
            throw .invalid(field: "protected", "\(protected.capacity) rows; the page has \(source.tokens)")
        }
        do throws(ModelError) { try quality.validate() } catch { throw CodecError(error) }
        try decoder.openExact(block, source)
        let page = UnsafeRawBufferPointer(start: decoder.page.exactRows, count: source.rawBytes)
        if mode == .raw {
            return makeHeader(like: source, mode: .raw).assemble(protectedSection: [], codedSection: [UInt8](page))
        }
        let lossless = { () -> [UInt8] in
            let section = Lossless.encode(page, rows: source.tokens, bytesPerElement: source.element.bytes)
            return makeHeader(like: source, mode: .lossless).assemble(protectedSection: [], codedSection: section)
        }
        guard mode != .lossless else { return lossless() }

        let rowBytes = geometry.rowElements * source.element.bytes
        var kept = protected
        for row in 0..<source.tokens
        where kv_all_finite(source.element.kernelCode, page.baseAddress! + row * rowBytes, geometry.rowElements) == 0 {
            kept.insert(row)
        }
        var task = CodingTask(
            page: page, quality: quality, keepsOutliers: keepOutliers, header: makeHeader(like: source, mode: mode))
        task.header.protected = kept
        guard let coded = try code(&task) else { return lossless() }
        kept = task.header.protected
        var keptRows: [UInt8] = []
        for row in kept.rows { keptRows += page[row * rowBytes..<(row + 1) * rowBytes] }
        let section = keptRows.withUnsafeBytes {
            Lossless.encode($0, rows: kept.count, bytesPerElement: source.element.bytes)
        }
        let result = task.header.assemble(protectedSection: section, codedSection: coded)
        if result.count * 2 > source.rawBytes {
            let exact = lossless()
            if exact.count <= result.count { return exact }
        }
        return result
    }

    /// The coded section of the rows that are not protected; nil where there are none or the coder gives up.
    private func code(_ task: inout CodingTask) throws(CodecError) -> [UInt8]? {
        guard task.header.protected.count < task.header.tokens,
            let coder = try task.header.mode.rowCoder(profile: profile, kernels: kernels)
        else { return nil }
        return memories.with { coder.encode(&task, memory: $0) }
    }

    /// Writes the page's tensors of `layers` in `layout` to `output`, which has exactly their size.
    /// - Throws: `corrupt` where any byte of the block is not as it was made, `mismatch` for another model's block.
    public func decode(
        block: UnsafeRawBufferPointer, layers: Range<Int>, layout: PageLayout,
        into output: UnsafeMutableRawBufferPointer
    ) throws(CodecError) {
        let decoder = takeDecoder()
        defer { giveBack(decoder) }
        try decoder.open(block)
        try decoder.write(layers: layers, layout: layout, into: output)
    }

    /// A decoder for one block at a time, for those who write a page in several parts. ``giveBack(_:)`` ends its use.
    public func takeDecoder() -> PageDecoder {
        decoders.take()
            ?? PageDecoder(
                geometry: geometry, hash: geometryHash, profile: profile, kernels: kernels, placements: placements)
    }

    /// Keeps the decoder and its memory for the next page.
    public func giveBack(_ decoder: PageDecoder) { decoders.giveBack(decoder) }

    // MARK: - Sections

    private func makeHeader(mode: Mode, element: Element, tokens: Int, firstPosition: Int) -> BlockHeader {
        BlockHeader(
            mode: mode, element: element, profile: nil, geometryHash: geometryHash, tokens: tokens,
            firstPosition: firstPosition, rowElements: geometry.rowElements, protected: RowSet(count: tokens), step: 0,
            distortion: 0, bitmapBytes: 0, protectedBytes: 0, codedBytes: 0)
    }

    private func makeHeader(like header: BlockHeader, mode: Mode) -> BlockHeader {
        makeHeader(mode: mode, element: header.element, tokens: header.tokens, firstPosition: header.firstPosition)
    }
}
