/// A request of a copy of the trace, at a machine.
struct Visit {
    /// Seconds.
    var time: Double
    var copy: UInt32
    /// Of ``Trace/requests``.
    var request: UInt32
    var store: Int
    /// Which of the machines that the store stands for.
    var machine: UInt32
}

/// Requests as they come to a fleet, in the order of time, each with the machine that the router sends it to.
struct Visits {
    /// In order.
    private(set) var all: [Visit] = []
    /// Copies of the trace, the last one perhaps not whole.
    let copies: Int
    /// Seconds from the first to the last.
    var seconds: Double { max((all.last?.time ?? 0) - (all.first?.time ?? 0), 1e-3) }

    /// Copies begin within this share of the trace's length of each other, so that not all of them have their bursts at once.
    private static let spread = 1.0 / 16

    /// - Parameter trace: all of its requests have a time.
    init(
        _ trace: Trace, _ conversations: ConversationIndex, _ folding: Folding, _ router: Router,
        _ prefill: Rates.Prefill
    ) {
        copies = Int(folding.copies.rounded(.up))
        let length = trace.seconds ?? 0
        for copy in 0..<copies {
            // Of the last copy so many conversations that the load is right.
            let share = min(1, folding.copies - Double(copy))
            let begin = copy == 0 ? 0 : length * Self.spread * Mixed.share(Mixed.word(1, UInt64(copy)))
            for (number, request) in trace.requests.enumerated() {
                let conversation = UInt64(conversations.numbers[number])
                guard share == 1 || Mixed.share(Mixed.word(2, conversation)) < share else { continue }
                let time = begin + (request.time ?? 0) / 1000
                all.append(
                    Visit(time: time, copy: UInt32(copy), request: UInt32(number), store: 0, machine: 0))
            }
        }
        all.sort { ($0.time, $0.copy, $0.request) < ($1.time, $1.copy, $1.request) }
        var routing = Routing(trace, conversations, folding, router, prefill)
        for index in all.indices {
            let (store, machine) = folding.place(routing.node(of: all[index]))
            (all[index].store, all[index].machine) = (store, UInt32(machine))
        }
    }
}
