import KVTCMonitor
import Testing

@Suite struct AddressTests {
    @Test func addressesOfThisMachineAreRead() throws {
        #expect(try MonitorAddress("127.0.0.1:9464") == .loopback(port: 9464))
        #expect(try MonitorAddress("localhost:0") == .loopback(port: 0))
        #expect(try MonitorAddress("unix:/run/x.sock") == .unix(path: "/run/x.sock"))
        #expect(try "\(MonitorAddress("localhost:80")) \(MonitorAddress("unix:/a"))" == "127.0.0.1:80 unix:/a")
    }

    @Test(arguments: [
        "", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "0.0.0.0:9464", "10.0.0.1:80",
        "[::1]:80",
        "unix:", "unix:relative", "unix:/" + String(repeating: "x", count: 107), "/run/x.sock",
    ]) func othersAreRefusedWithTheReason(text: String) {
        #expect { try MonitorAddress(text) } throws: {
            "\($0)".contains("unix:/") || "\($0)".contains("this machine alone")
        }
    }
}
