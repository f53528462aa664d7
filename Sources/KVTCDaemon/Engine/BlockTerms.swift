import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions

/// What a session takes for a block of one of its pages. Blocks that workers make are judged by their headers and checksums and
/// never decoded for that: what else is wrong with one hurts only who pushed it, when it is pulled.
struct BlockTerms {
    let session: Session
    /// At the end that the stream reaches with the push.
    let promise: Promise

    /// The header of a block for that entry of the request.
    /// - Parameter block: memory that nothing else writes to.
    func header(
        of block: UnsafeRawBufferPointer, _ entry: PushEntry, _ index: Int
    ) throws(WireError) -> BlockHeader {
        do throws(WireError) {
            let header = try parse(block)
            try checkShape(header, entry)
            try checkQuality(header, try checkRows(header))
            return header
        } catch {
            throw WireError(error.code, field: "entries[\(index)].\(error.field)", error.message)
        }
    }

    private func refuse(_ field: String, _ message: String) -> WireError {
        WireError(.invalidField, field: field, message)
    }

    private func parse(_ block: UnsafeRawBufferPointer) throws(WireError) -> BlockHeader {
        do throws(CodecError) { return try BlockHeader.parse(block) } catch {
            switch error {
            case .unsupported(let what): throw refuse("version", what)
            case .corrupt(let what), .mismatch(let what), .invalid(_, let what): throw refuse("block", what)
            }
        }
    }

    private func checkShape(_ header: BlockHeader, _ entry: PushEntry) throws(WireError) {
        let (codec, element) = (session.context.codec, session.context.layout.element)
        guard header.mode != .raw else { throw refuse("mode", "a page that is not coded is pushed as it is") }
        guard header.element == element else {
            throw WireError(
                .geometryMismatch, field: "element", "\(header.element), where the session has \(element)")
        }
        guard header.geometryHash == codec.geometryHash, header.rowElements == codec.geometry.rowElements else {
            throw WireError(.geometryMismatch, field: "geometry", "the block is of another one than the session")
        }
        guard header.tokens == Int(entry.tokens) else {
            throw refuse("tokens", "\(entry.tokens), where the block has \(header.tokens)")
        }
        guard header.firstPosition == Int(entry.firstPosition) else {
            throw refuse(
                "firstPosition", "\(entry.firstPosition), where the block begins at \(header.firstPosition)")
        }
        guard header.profile == (header.mode.needsProfile ? codec.profile?.id : nil) else {
            throw refuse("profile", "\(header.profile.map { "\($0)" } ?? "none") is not what the session and mode need")
        }
        // So that what a page takes at most is known without asking for each.
        let most = codec.wrappedBytes(element: element, tokens: header.tokens)
        guard header.blockBytes <= most else {
            throw refuse("length", "\(header.blockBytes) bytes, where the page as it is takes \(most)")
        }
    }

    private func checkRows(_ header: BlockHeader) throws(WireError) -> CodedPage {
        guard !header.mode.isExact || header.protectedSection.count + header.protected.count == 0 else {
            throw refuse("protected", "a block that is exact as a whole protects no rows")
        }
        let page = CodedPage(header)
        let rows = promise.protection.rows(first: header.firstPosition, tokens: header.tokens, window: true)
        if let row = rows.rows.first(where: { !page.exact.contains($0) }) {
            throw refuse("protected", "row \(row), which the session's policy protects, is not among them")
        }
        return page
    }

    private func checkQuality(_ header: BlockHeader, _ page: CodedPage) throws(WireError) {
        for (field, value) in [("step", header.step), ("distortion", header.distortion)] {
            guard value.isFinite, value >= 0 else {
                throw refuse(field, "\(value) is not a finite, non-negative number")
            }
        }
        guard !promise.choice.isMet(by: page) else { return }
        if let bound = promise.choice.quality.distortion, page.mode.bits == 0 {
            throw refuse("distortion", "\(header.distortion) is more than \(bound), the policy's bound")
        }
        throw refuse("mode", "\(header.mode) is less than \(promise.choice.mode), the policy's")
    }
}
