import CLinux
import Glibc

/// The user namespace of this process: which users have numbers in it.
public struct UserNamespace: Sendable {
    private let users: Identifiers
    private let groups: Identifiers

    /// Numbers of one kind that are mapped, and the one under which all others show.
    struct Identifiers: Sendable {
        var mapped: [Range<UInt64>]
        var overflow: UInt32

        /// `map` as /proc/self/uid_map has it: first number inside, first outside, how many.
        init(map: String, overflow: String) {
            mapped = map.split(separator: "\n").compactMap { line in
                let numbers = line.split(separator: " ").compactMap { UInt64($0) }
                return numbers.count == 3 ? numbers[0]..<numbers[0] + min(numbers[2], 1 << 32) : nil
            }
            self.overflow = UInt32(overflow.filter(\.isNumber)) ?? 65534
        }

        func isUnknown(_ number: UInt32) -> Bool {
            number == overflow && !mapped.contains { $0.contains(UInt64(number)) }
        }
    }

    /// As it is now. What cannot be read maps no user.
    public init() {
        self.init(
            userMap: SmallFile.text("/proc/self/uid_map"),
            overflowUser: SmallFile.text("/proc/sys/kernel/overflowuid"),
            groupMap: SmallFile.text("/proc/self/gid_map"),
            overflowGroup: SmallFile.text("/proc/sys/kernel/overflowgid"))
    }

    /// From the texts of the kernel's files.
    package init(userMap: String, overflowUser: String, groupMap: String, overflowGroup: String) {
        users = Identifiers(map: userMap, overflow: overflowUser)
        groups = Identifiers(map: groupMap, overflow: overflowGroup)
    }

    /// Whether the number stands for every user that has none here.
    public func isUnknown(user: UInt32) -> Bool { users.isUnknown(user) }

    /// Whether the number stands for every group that has none here.
    public func isUnknown(group: UInt32) -> Bool { groups.isUnknown(group) }

    /// Whether there are users without a number.
    public var isPartial: Bool { users.isUnknown(users.overflow) }
}

extension UnixConnection {
    /// Whether the process at the other end is in this process's own pid namespace, not in one below or beside it, as those of
    /// containers are. False also when it is gone, so that it cannot be told.
    public var isPeerInSameProcessNamespace: Bool {
        // No number: beside this namespace or above it.
        guard peer.pid > 0 else { return false }
        // A number may be another process's by now; the socket knows which one it was.
        let known = peerProcess
        let theirs = UnixConnection.depth(ofProcess: known == -ENOPROTOOPT ? clinux_pidfd(peer.pid) : known)
        return theirs > 0 && theirs == UnixConnection.depth(ofProcess: clinux_pidfd(getpid()))
    }

    /// In how many pid namespaces a process has a number, counted from the one that /proc shows; 0 when it is gone. Closes the
    /// descriptor.
    private static func depth(ofProcess raw: Int32) -> Int {
        guard raw >= 0 else { return 0 }
        defer { close(raw) }
        let line = SmallFile.lines("/proc/self/fdinfo/\(raw)").first { $0.hasPrefix("NSpid:") }
        return line?.split(separator: "\t").count { Int($0) ?? 0 > 0 } ?? 0
    }
}
