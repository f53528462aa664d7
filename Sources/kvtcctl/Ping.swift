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

    @Option(help: ArgumentHelp("How many round trips.", valueName: "n"))
    var count = 10

    @Option(help: ArgumentHelp("Bytes to send along, up to 1 MiB.", valueName: "bytes"))
    var size = 0

    @Flag(help: "Print {\"count\", \"bytes\", \"min_us\", \"p50_us\", \"max_us\"}.")
    var json = false

    func validate() throws {
        guard (1...1_000_000).contains(count) else { throw ValidationError("--count takes 1 to 1000000.") }
        guard (0...1 << 20).contains(size) else { throw ValidationError("--size takes 0 to 1048576.") }
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
            let numbers = [fastest, middle, slowest].map { Text.decimal($0, 1) }
            print(
                "{\"count\":\(count),\"bytes\":\(size),\"min_us\":\(numbers[0]),\"p50_us\":\(numbers[1]),"
                    + "\"max_us\":\(numbers[2])}")
        } else {
            print(
                "\(server.server): \(count) round trips with \(Text.bytes(UInt64(size))), "
                    + "min \(Text.microseconds(fastest)), median \(Text.microseconds(middle)), "
                    + "max \(Text.microseconds(slowest))")
        }
    }
}
