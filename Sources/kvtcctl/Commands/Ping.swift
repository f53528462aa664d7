import ArgumentParser
import KVTCProtocol
import KVTCSystem

struct PingCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ping",
        abstract: "Measure the way to the daemon and back.",
        discussion: """
            EXAMPLES
              kvtcctl ping
              kvtcctl ping --count 1000 --size 65536
              until kvtcctl ping --count 1; do sleep 1; done    wait for the daemon
            """)

    @OptionGroup var connection: ConnectionOptions

    @Option(
        parsing: .unconditional, help: ArgumentHelp("How many round trips.", valueName: "n"),
        transform: Parsed.whole(1...1_000_000))
    var count = 10

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Bytes to send along, up to 1 MiB.", valueName: "bytes"),
        transform: Parsed.whole(0...1 << 20))
    var size = 0

    @Flag(help: "Print {\"count\", \"bytes\", \"min_us\", \"p50_us\", \"max_us\"}.")
    var json = false

    private struct Result: Encodable {
        var count, bytes: Int
        var minUs, p50Us, maxUs: Double
    }

    func run() throws {
        let payload = (0..<size).map { UInt8(truncatingIfNeeded: $0) }[...]
        let (server, times) = try connection.withClient { client in
            var times: [Double] = []
            for _ in 0..<count {
                let start = MonotonicClock.nanoseconds
                let reply = try client.call(PingRequest(payload: payload))
                times.append(Double(MonotonicClock.nanoseconds - start) / 1000)
                guard reply.payload == payload else {
                    complain("the payload came back changed; please report this as a bug")
                    throw ExitCode(1)
                }
            }
            return (client.server, times.sorted())
        }
        let (fastest, middle, slowest) = (times[0], times[times.count / 2], times[times.count - 1])
        if json {
            let numbers = [fastest, middle, slowest].map { ($0 * 10).rounded() / 10 }
            print(
                try jsonLine(
                    Result(count: count, bytes: size, minUs: numbers[0], p50Us: numbers[1], maxUs: numbers[2])))
        } else {
            Terminal.show(
                Terminal.wrapped(
                    Terminal.shown(
                        "\(server.server): \(Text.count(UInt64(count), "round trip")) with \(Text.bytes(UInt64(size))), "
                            + "min \(Text.microseconds(fastest)), median \(Text.microseconds(middle)), "
                            + "max \(Text.microseconds(slowest))")))
        }
    }
}
