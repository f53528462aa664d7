import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions
import KVTCStore

// Where pages are and why. Nothing here counts as a use, neither of a page nor of a session.
extension Engine {
    func explain(_ request: ExplainRequest, _ caller: Caller) throws(WireError) -> JSONReply {
        guard request.keys.count <= ExplainRequest.most else {
            throw WireError(
                .limitExceeded, field: "keys",
                "\(request.keys.count) are more than \(ExplainRequest.most): ask for some")
        }
        var report = ExplainReport()
        guard request.session != Wire.none else {
            guard !request.keys.isEmpty else {
                throw WireError(.invalidField, field: "session", "a session or keys are needed")
            }
            report.pages = explained(request.keys.flatMap { candidates($0, caller) }, promise: nil)
            return JSONReply(report)
        }
        let (session, pages, count) = try pages(of: request, caller)
        report.session = ExplainReport.Session(session, pages: count, code: configuration.codeInEffect)
        if request.keys.isEmpty {
            report.first = min(Int(request.first), count)
            let end = report.first + pages.count
            report.next = end < count ? end : nil
        }
        let asked =
            request.keys.isEmpty
            ? pages.map { Asked(page: PageKey(vector: session.namespace.page($0.key)), key: $0.key, place: $0) }
            : request.keys.map { Asked(page: $0, key: storeKey(session, $0), place: nil) }
        report.pages = explained(asked, promise: session.promise)
        return JSONReply(report)
    }

    /// A page that was asked about.
    private struct Asked {
        var page: PageKey
        var key: StoreKey
        /// Where it stands in the session that was asked about.
        var place: SessionPage?
    }

    /// A session without its pages, some of these, and how many it has. One of another tenant is like none at all.
    private func pages(
        of request: ExplainRequest, _ caller: Caller
    ) throws(WireError) -> (Session, [SessionPage], count: Int) {
        let found = ledger.withLock { ledger -> (Session, [SessionPage], Int)? in
            guard let session = ledger.sessions[request.session],
                session.tenant == caller.tenant || caller.isAdministrator
            else { return nil }
            let pages = session.pages.dropFirst(Int(request.first)).prefix(ExplainRequest.most)
            return (session.withoutPages, Array(pages), session.pages.count)
        }
        guard let found else {
            throw WireError(.unknownSession, field: "session", "no session \(request.session)")
        }
        return found
    }

    /// What a key may stand for: the pages that are there under the models that the tenant's sessions used last, an
    /// administrator's search going on in other tenants. Where there is none, one that is absent.
    private func candidates(_ page: PageKey, _ caller: Caller) -> [Asked] {
        let known = namespaces.withLock { known in
            known.filter { caller.isAdministrator || $0.key == caller.tenant }.flatMap { tenant, recent in
                recent.all.map { $0.key(page.vector, tenant: tenant) }
            }
        }
        var there = known.filter { store.residence($0) != .absent }
        if there.isEmpty, let shared { there = zip(known, shared.ask(known)).filter { $1 != nil }.map(\.0) }
        let none = StoreKey(tenant: caller.tenant, words: page.vector)
        return (there.isEmpty ? [none] : there).map { Asked(page: page, key: $0, place: nil) }
    }

    private func explained(_ asked: [Asked], promise: Promise?) -> [ExplainReport.Page] {
        let asked = asked.prefix(ExplainRequest.most)
        var states: [StoreKey: PageState] = [:]
        for (_, group) in Dictionary(grouping: asked.map(\.key), by: \.tenant) {
            for case (let key, let state?) in zip(group, store.states(group)) { states[key] = state }
        }
        let missing = asked.map(\.key).filter { states[$0] == nil }
        let elsewhere = Dictionary(zip(missing, missing.isEmpty ? [] : shared?.ask(missing) ?? [])) { first, _ in first
        }
        let insights = ledger.withLock { ledger in
            Dictionary(asked.map { ($0.key, ledger.insight($0.key)) }) { first, _ in first }
        }
        let costs = Dictionary(grouping: metrics.costs(of: nil), by: \.tenant)
        return asked.map { one in
            var row = ExplainReport.Page()
            (row.key, row.tenant) = ("\(one.page)", one.key.tenant)
            (row.first, row.tokens) = (one.place?.first ?? 0, one.place?.tokens ?? 0)
            guard let state = states[one.key] else {
                if let page = elsewhere[one.key] ?? nil { row.fill(page) }
                return row
            }
            let insight = insights[one.key] ?? nil
            row.fill(state, one.place?.first)
            row.sessions = insight?.sessions ?? []
            let header = state.isInRAM ? store.peek(one.key) { try? BlockHeader.parse($0, isVerified: true) } : nil
            let coded = header.flatMap(\.self).map(CodedPage.init) ?? ledger.withLock { $0.coded(one.key) }
            if state.attributes.coded, let coded { row.fill(coded) }
            let profile = insight?.profile ?? header.flatMap(\.self)?.profile
            row.profile = profile?.description
            row.reasons = Self.reasons(state, insight, coded)
            if let promise, state.attributes.lossy,
                !isKept(promise, one.key, state.attributes, at: state.isInRAM ? .ram : .disk)
            {
                row.reasons.append(.promise)
            }
            let shape = PullCosts.Shape(
                profile: profile, tokenBytes: Int(state.attributes.rawBytes) / max(1, Int(state.attributes.tokens)))
            let source: PageSource = !state.isInRAM ? .disk : state.attributes.coded ? .coded : .raw
            row.pullUs = costs[one.key.tenant]?.first { $0.shape == shape }?.costs.nanoseconds(source).map {
                $0 * Double(state.attributes.tokens) / 1000
            }
            return row
        }
    }

    private static func reasons(
        _ state: PageState, _ insight: PageInsight?, _ coded: CodedPage?
    ) -> [ExplainReport.Reason] {
        var reasons: [ExplainReport.Reason] = []
        let attributes = state.attributes
        switch insight?.phase {
        case _ where attributes.coded && attributes.near: reasons.append(.near)
        case _ where attributes.coded && coded?.mode.isExact == true:
            reasons.append(insight?.isLossless ?? true ? .lossless : .keptLossless)
        case _ where attributes.coded: reasons.append(.coded)
        case nil: reasons.append(.unclaimed)
        case .queued: reasons.append(.queued)
        case .encoding: reasons.append(.encoding)
        case .replacing: reasons.append(.replacing)
        case .waiting: reasons.append(insight?.time == .idle ? .idle : .pressure)
        case .coded: reasons.append(.keptLossless)
        case .raw: break
        }
        if insight?.isInWindow == true { reasons.append(.window) }
        if insight?.hasSink == true { reasons.append(.sink) }
        if insight?.hasRange == true { reasons.append(.range) }
        if insight?.hasRetained == true || attributes.promised { reasons.append(.retained) }
        if attributes.pinned { reasons.append(.pinned) }
        if state.leases > 0 { reasons.append(.leased) }
        return reasons
    }
}

extension ExplainReport.Session {
    fileprivate init(_ session: Session, pages: Int, code: CodingTime) {
        self.init()
        (id, name, tenant, isIdle) = (session.id, session.name, session.tenant, session.isIdle)
        (mode, self.code) = ("\(session.policy.mode)", (session.policy.code ?? code).rawValue)
        (sink, window) = (session.policy.sink, session.policy.window)
        (tokens, self.pages, tokenBytes) = (session.tokens, pages, session.tokenBytes)
    }
}

extension ExplainReport.Page {
    /// What other machines have; what it is like only they know.
    fileprivate mutating func fill(_ page: SharedPage) {
        (place, form) = ("shared", page.attributes.coded ? "coded" : "raw")
        (first, tokens) = (Int(page.attributes.firstPosition), Int(page.attributes.tokens))
        (bytes, rawBytes) = (page.length, Int(clamping: page.attributes.rawBytes))
    }

    fileprivate mutating func fill(_ state: PageState, _ position: Int?) {
        let attributes = state.attributes
        (first, tokens) = (position ?? Int(attributes.firstPosition), Int(attributes.tokens))
        (place, form) = (state.isInRAM ? "ram" : "disk", attributes.coded ? "coded" : "raw")
        isOnDisk = state.isOnDisk
        if !attributes.coded {
            (mode, distortion, exactTokens) = ("raw", 0, tokens)
        }
        (bytes, rawBytes, priority) = (state.length, Int(clamping: attributes.rawBytes), attributes.priority)
        (leases, expiresS) = (state.leases, state.expiresIn)
        (pagesBefore, bytesBefore) = (state.before?.pages, state.before?.bytes)
        segmentsBefore = state.olderSegments
    }

    fileprivate mutating func fill(_ coded: CodedPage) {
        (mode, exactTokens) = ("\(coded.mode)", coded.exact.count)
        distortion = coded.distortion.isFinite ? Double(coded.distortion) : nil
    }
}
