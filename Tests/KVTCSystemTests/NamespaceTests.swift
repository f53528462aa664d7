import Glibc
import KVTCSystem
import TestSupport
import Testing

struct NamespaceTests {
    private static let everybody = "         0          0 4294967295\n"

    @Test(arguments: [
        (everybody, "65534\n", false), ("         0       1000          1\n", "65534\n", true), ("", "65534\n", true),
        ("0 100000 65536\n", "65534\n", false), ("0 1000 1\n1 100000 65533\n", "65534\n", true),
        ("0 1000 1\n1 100000 65534\n", "65534\n", false), ("0 1000 1\n", "99\n", false), ("0 1000 1\n", "", true),
        ("garbage\n1 2\n", "65534", true),
    ])
    func aNumberIsNobodysWhereTheMapLeavesItOut(map: String, overflow: String, isUnknown: Bool) {
        let users = UserNamespace(
            userMap: map, overflowUser: overflow, groupMap: Self.everybody, overflowGroup: "65534")
        #expect(users.isUnknown(user: 65534) == isUnknown)
        #expect(!users.isUnknown(user: 0) && !users.isUnknown(group: 65534))
        let groups = UserNamespace(
            userMap: Self.everybody, overflowUser: "65534", groupMap: map, overflowGroup: overflow)
        #expect(groups.isUnknown(group: 65534) == isUnknown && !groups.isUnknown(user: 65534))
    }

    @Test func aProcessIsInItsOwnNamespace() throws {
        let directory = try TemporaryDirectory()
        let listener = try UnixListener(path: directory.file("s"))
        #expect(listener.boundPath == directory.file("s"))
        let client = try UnixConnection.connect(to: directory.file("s"))
        let server = try #require(try listener.accept(wakeUp: WakeUp()))
        #expect(server.isPeerInSameProcessNamespace && client.isPeerInSameProcessNamespace)
    }
}
