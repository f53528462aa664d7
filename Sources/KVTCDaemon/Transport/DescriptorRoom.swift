import Glibc
import KVTCSystem

/// How many files clients may keep open, so that the disk, those who come to look and the daemon itself always find some.
struct DescriptorRoom: Sendable {
    /// The process's limit of open files.
    let limit: Int
    /// Connections of all users.
    let connections: Int
    /// The same with those of administrators.
    let withAdministrators: Int
    /// Arenas of all users: their descriptors are the daemon's until the client has read the reply.
    let arenas: Int

    /// What is not set aside for segments, memory files, sockets and whatever is open for a moment.
    init(_ configuration: DaemonConfiguration, limit: Int = Machine.openFiles) {
        self.limit = limit
        let segments = configuration.effectiveDiskBudget / configuration.segmentBytes + 2
        let room = max(limit - segments - 128, limit / 4)
        withAdministrators = room / 2
        connections = max(1, withAdministrators - withAdministrators / 8)
        arenas = min(room / 2, 16_384)
    }
}
