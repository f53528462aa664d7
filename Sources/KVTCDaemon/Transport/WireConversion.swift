import KVTCCodec
import KVTCProtocol
import KVTCStore

extension VerifyReply {
    /// The store's figures.
    init(_ progress: VerifyProgress) {
        self.init(
            checked: progress.checked, total: progress.total, bytes: progress.bytes, corrupt: progress.corrupt,
            unreadable: progress.unreadable)
    }
}

extension PullRequest {
    /// All layers of the pages.
    init(_ request: PullBlocksRequest) {
        self.init(session: request.session, lease: request.lease, arena: request.arena, entries: request.entries)
    }
}

extension WireError {
    /// A codec's complaint as an answer; `field` is named when the codec names none.
    init(codec error: CodecError, field: String) {
        switch error {
        case .invalid(let name, let text): self.init(.invalidField, field: name, text)
        case .mismatch(let text): self.init(.geometryMismatch, field: field, text)
        case .unsupported(let text): self.init(.invalidField, field: field, text)
        case .corrupt(let text): self.init(.internalError, field: field, text)
        }
    }
}
