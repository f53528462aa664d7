import KVTCStore

/// Works out what each of several setups would do for a trace.
public struct Planner: Sendable {
    /// The trace.
    public let trace: Trace
    /// Of the model and the sessions.
    public let shape: PageShape
    /// Bytes of GPU memory for caches, whose hits there are without kvtcd; 0: none.
    public let gpuMemory: Int
    /// For times.
    public let rates: Rates

    /// A planner.
    public init(trace: Trace, shape: PageShape, gpuMemory: Int = 0, rates: Rates = Rates()) {
        (self.trace, self.shape, self.gpuMemory, self.rates) = (trace, shape, gpuMemory, rates)
    }

    /// Blocks that an engine hands over at a time, and that are raw until they are coded: those of 8192 tokens, which is what vLLM
    /// computes in a step by default.
    public static func pushedBlocks(blockTokens: Int) -> Int { max(1, 8192 / blockTokens) }

    /// Replays the trace against each setup.
    /// - Parameter progress: called now and then with the share of the work that is done.
    public func plan(_ setups: [Setup], progress: (Double) -> Void = { _ in }) throws(StoreError) -> PlanReport {
        var done = 0
        let runs = setups.count + (gpuMemory > 0 ? 1 : 0)
        let work = max(1, runs * trace.requests.count)
        func step() {
            done += 1
            if done % 64 == 0 || done == work { progress(Double(done) / Double(work)) }
        }
        // What the GPU keeps by itself: raw, and the blocks used longest ago go first, as in kvtcd's RAM.
        var own = [Int](repeating: 0, count: trace.requests.count)
        if gpuMemory > 0 {
            var replay = try StoreReplay(trace, shape, Setup(ram: gpuMemory))
            _ = replay.run { number, hits in
                own[number] = hits.tokens
                step()
            }
        }
        var report = PlanReport(
            trace: trace, shape: shape, gpuMemory: gpuMemory, today: outcome { own[$0] },
            ceiling: outcome(hits: trace.endlessMemory()))
        for setup in setups {
            var outcome = PlanReport.Outcome()
            var replay = try StoreReplay(trace, shape, setup)
            let result = replay.run { number, hits in
                count(number, hits, own[number], setup, &outcome)
                step()
            }
            report.setups.append(PlanReport.Line(setup: setup, result: result, outcome: outcome))
        }
        return report
    }

    private func outcome(hits: [Int]) -> PlanReport.Outcome { outcome { hits[$0] } }

    private func outcome(_ hits: (Int) -> Int) -> PlanReport.Outcome {
        var outcome = PlanReport.Outcome()
        for number in trace.requests.indices { add(number, found: hits(number), &outcome) }
        return outcome
    }

    private func add(_ number: Int, found: Int, _ outcome: inout PlanReport.Outcome) {
        let request = trace.requests[number]
        outcome.blocks += request.blocks.count
        outcome.hitBlocks += (found + trace.blockTokens - 1) / trace.blockTokens
        outcome.hitTokens += found
        outcome.computedTokens += request.inputTokens - found
        if let prefill = rates.prefill {
            outcome.computeSeconds =
                (outcome.computeSeconds ?? 0) + prefill.seconds(from: found, to: request.inputTokens)
        }
    }

    /// What kvtcd finds counts as far as the GPU does not have it.
    private func count(
        _ number: Int, _ hits: RequestHits, _ own: Int, _ setup: Setup, _ outcome: inout PlanReport.Outcome
    ) {
        add(number, found: max(own, hits.tokens), &outcome)
        let beyond = max(0, hits.tokens - own)
        var seconds = outcome.restoreSeconds
        if let rate = rates.restore[setup.coding.ratio] { seconds = (seconds ?? 0) + Double(beyond) / rate }
        if let rate = rates.diskBytesPerSecond {
            let bytes = Double(min(hits.onDisk * trace.blockTokens, beyond) * shape.tokenBytes) / setup.coding.ratio
            seconds = (seconds ?? 0) + bytes / rate
        }
        outcome.restoreSeconds = seconds
    }
}
