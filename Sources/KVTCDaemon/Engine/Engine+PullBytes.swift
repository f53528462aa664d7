import KVTCCodec
import KVTCProtocol
import KVTCSessions
import KVTCStore
import KVTCSystem

// Where the bytes of a page that is open go: into the client's arena, or along with the reply.
extension Engine {
    /// False where the stored bytes turned out not to be what was put.
    func writeInPlace(
        _ page: OpenPage, _ range: Range<Int>, _ work: PullWork, _ arena: Arena, _ part: PullPart
    ) throws(CodecError) -> Bool {
        let layout = work.context.layout
        let isRight: Bool? = try arena.withWritable(offset: part.offset, length: part.length) {
            (output) throws(CodecError) in
            guard !work.asStored else { return copy(page.block, to: output) }
            guard page.decoder.header?.mode == .raw, work.copiesOnce, !page.block.isConfirmed else {
                try page.decoder.write(layers: range, layout: layout, into: output)
                return true
            }
            let sum = try page.decoder.writeRaw(
                layers: range, layout: layout, pastCaches: work.isLarge, into: output)
            return store.confirm(page.block, checksum: sum)
        }
        guard let isRight else { throw .invalid(field: "offset", "outside the arena") }
        return isRight
    }

    /// A second try where bytes went bad in RAM: the store may have the page on disk.
    func writeFromDisk(
        _ page: PulledPage, _ range: Range<Int>, _ work: PullWork, _ arena: Arena, _ part: PullPart
    ) throws(CodecError) {
        guard store.residence(page.key) == .disk,
            let again = try? open(page, store.borrow(Int(page.index), of: work.use), work),
            again.block.isConfirmed, UInt64(byteCount(of: again, range, work)) == part.length,
            try writeInPlace(again, range, work, arena, part)
        else { throw .corrupt("block checksum") }
    }

    /// A block in one pass through memory, that copies it and checks it.
    private func copy(_ block: BorrowedPage, to output: UnsafeMutableRawBufferPointer) -> Bool {
        let sum = Checksum()
        sum.add(block.bytes, copyingTo: output)
        return store.confirm(block, checksum: sum.value)
    }

    /// Bytes that these layers of the page take where they go; a stored page has no layers of its own.
    func byteCount(of page: OpenPage, _ layers: Range<Int>, _ work: PullWork) -> Int {
        guard !work.asStored else { return layers.isEmpty ? 0 : page.block.bytes.count }
        let context = work.context
        return context.layout.pageBytes(geometry: context.codec.geometry, tokens: page.tokens, layers: layers)
    }

    func inlineBytes(
        _ page: OpenPage, _ range: Range<Int>, _ work: PullWork, _ length: Int
    ) throws(CodecError) -> InlineBytes {
        guard !work.asStored else { return .stored(page.block, 0..<length) }
        let context = work.context
        if let stored = page.decoder.stored(layers: range, layout: context.layout) {
            return .stored(page.block, stored)
        }
        var failure: CodecError?
        let output = [UInt8](unsafeUninitializedCapacity: length) { buffer, filled in
            do throws(CodecError) {
                try page.decoder.write(
                    layers: range, layout: context.layout,
                    into: UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: length))
                filled = length
            } catch { failure = error }
        }
        if let failure { throw failure }
        return .decoded(output)
    }

    /// Takes out a page whose bytes are as they were put and no block all the same, as a worker may have pushed one: it would keep
    /// a better one from its key.
    func letGo(_ key: StoreKey, _ block: BorrowedPage) {
        let length = block.bytes.count
        // Not here: a page of a pull is locked, and this may wait for a coder.
        readers.submit(.background) { [self] in
            if store.length(key) == length { drop([key]) }
        }
    }
}
