import CLinux
import Glibc
import Synchronization

/// Who is at the other end of a socket, as the kernel knows it.
public struct PeerCredentials: Hashable, Sendable {
    /// The user.
    public let uid: UInt32
    /// The group.
    public let gid: UInt32
    /// The process, when it connected.
    public let pid: Int32
    /// The supplementary groups.
    public let groups: [UInt32]
}

/// Why bytes did not come or go.
public enum ConnectionError: Error, Hashable, Sendable {
    /// The peer is gone; `partial` when that was in the middle of what was asked for.
    case closed(partial: Bool)
    /// The time was over.
    case timeout
    /// The system refused.
    case system(SystemError)
}

/// One end of a Unix stream socket. One thread reads; any thread writes, whole messages at a time.
public final class UnixConnection: Sendable {
    private let descriptor: FileDescriptor
    private let writing = Mutex<Void>(())
    /// Nanoseconds; 0 for none.
    private let writeLimit = Atomic<UInt64>(0)
    /// Who is at the other end.
    public let peer: PeerCredentials

    /// Takes over a connected socket.
    public init(owning descriptor: consuming FileDescriptor) throws(SystemError) {
        var uid: UInt32 = 0
        var gid: UInt32 = 0
        var pid: Int32 = 0
        _ = try SystemError.check("SO_PEERCRED", clinux_peer(descriptor.raw, &uid, &gid, &pid))
        peer = PeerCredentials(uid: uid, gid: gid, pid: pid, groups: UnixConnection.groups(descriptor.raw))
        self.descriptor = descriptor
    }

    /// A descriptor of the process at the other end, negative where the kernel has none.
    var peerProcess: Int32 { clinux_peer_pidfd(descriptor.raw) }

    // None where the kernel does not tell, so that membership is never assumed.
    private static func groups(_ socket: Int32) -> [UInt32] {
        var groups = [UInt32](repeating: 0, count: 32)
        var count = Int(clinux_peer_groups(socket, &groups, groups.count))
        if count > groups.count {
            groups = [UInt32](repeating: 0, count: count)
            count = min(Int(clinux_peer_groups(socket, &groups, groups.count)), groups.count)
        }
        return Array(groups.prefix(max(0, count)))
    }

    /// Connects to the socket at a path. Where so many wait there that the kernel takes no more, fails with ETIMEDOUT after the
    /// given time.
    public static func connect(to path: String, milliseconds: Int64 = 0) throws(SystemError) -> UnixConnection {
        let socket = FileDescriptor(owning: try SystemError.check("socket", clinux_unix_socket()))
        _ = try SystemError.check("connect to \(path)", clinux_unix_connect(socket.raw, path, milliseconds))
        return try UnixConnection(owning: socket)
    }

    /// Two connected ends, for tests and for talking to oneself.
    public static func pair() throws(SystemError) -> (UnixConnection, UnixConnection) {
        var ends: [Int32] = [-1, -1]
        _ = try SystemError.check("socketpair", clinux_unix_pair(&ends))
        let first = FileDescriptor(owning: ends[0])
        let second = FileDescriptor(owning: ends[1])
        return (try UnixConnection(owning: first), try UnixConnection(owning: second))
    }

    /// Fails the write of a message that the peer has not taken after the given time, however slowly it reads, so that it
    /// holds no writer up for longer.
    public func limitWrites(seconds: Int) { limitWrites(nanoseconds: UInt64(seconds) * 1_000_000_000) }

    /// The same in nanoseconds; 0 for no limit.
    public func limitWrites(nanoseconds: UInt64) { writeLimit.store(nanoseconds, ordering: .relaxed) }

    /// Waits until something can be read; false when the time (on ``MonotonicClock``) was over first.
    public func awaitInput(until deadline: UInt64) throws(ConnectionError) -> Bool {
        try awaitEvent(POLLIN, until: deadline)
    }

    private func awaitEvent(_ event: Int32, until deadline: UInt64?) throws(ConnectionError) -> Bool {
        while true {
            var wait: Int32 = -1
            if let deadline {
                let now = MonotonicClock.nanoseconds
                guard now < deadline else { return false }
                wait = Int32(clamping: (deadline - now + 999_999) / 1_000_000)
            }
            var set = pollfd(fd: descriptor.raw, events: Int16(event), revents: 0)
            let ready = poll(&set, 1, wait)
            if ready > 0 { return true }
            if ready < 0, errno != EINTR { throw .system(SystemError("poll", code: errno)) }
        }
    }

    /// Reads exactly as many bytes as the buffer has. Descriptors that come along are dropped by the kernel, and an error
    /// (EBADMSG).
    public func read(into buffer: UnsafeMutableRawBufferPointer, deadline: UInt64? = nil) throws(ConnectionError) {
        var none: [Int32] = []
        try receive(buffer, descriptors: &none, limit: 0, deadline: deadline)
    }

    /// Reads exactly `count` bytes.
    public func read(count: Int, deadline: UInt64? = nil) throws(ConnectionError) -> [UInt8] {
        var none: [Int32] = []
        return try read(count: count, descriptors: &none, limit: 0, deadline: deadline)
    }

    /// Reads exactly `count` bytes and at most one descriptor that came with them.
    public func readWithDescriptor(
        count: Int, deadline: UInt64? = nil
    ) throws(ConnectionError) -> (bytes: [UInt8], descriptor: Int32?) {
        var received: [Int32] = []
        let bytes = try read(count: count, descriptors: &received, limit: 1, deadline: deadline)
        return (bytes, received.first)
    }

    private func read(
        count: Int, descriptors: inout [Int32], limit: Int, deadline: UInt64?
    ) throws(ConnectionError) -> [UInt8] {
        var failure: ConnectionError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            do throws(ConnectionError) {
                try receive(
                    UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: count), descriptors: &descriptors,
                    limit: limit, deadline: deadline)
                filled = count
            } catch { failure = error }
        }
        if let failure {
            for one in descriptors { close(one) }
            descriptors = []
            throw failure
        }
        return bytes
    }

    /// What is worth telling the kernel a time limit for, so that it gathers all of it before it wakes the thread.
    private static let bulk = 64 << 10

    private func receive(
        _ buffer: UnsafeMutableRawBufferPointer, descriptors: inout [Int32], limit: Int, deadline: UInt64?
    ) throws(ConnectionError) {
        var filled = 0
        var attached = [Int32](repeating: -1, count: limit)
        var patience = CLINUX_NO_WAIT
        while filled < buffer.count {
            var number = 0
            let room = max(0, limit - descriptors.count)
            let start = buffer.baseAddress! + filled
            let result = clinux_receive(
                descriptor.raw, start, buffer.count - filled, patience, &attached, room, &number)
            if result == 0 || result == -Int(ECONNRESET) { throw .closed(partial: filled > 0) }
            if result < 0, result != -Int(EAGAIN) { throw .system(SystemError("recvmsg", code: Int32(-result))) }
            descriptors.append(contentsOf: attached.prefix(number))
            filled += max(0, result)
            guard filled < buffer.count else { return }
            if buffer.count - filled >= Self.bulk {
                try limitReceive(until: deadline)
                patience = CLINUX_ALL
            } else if deadline != nil {
                guard try awaitEvent(POLLIN, until: deadline) else { throw .timeout }
                patience = CLINUX_NO_WAIT
            } else {
                patience = CLINUX_SOME
            }
        }
    }

    private func limitReceive(until deadline: UInt64?) throws(ConnectionError) {
        var milliseconds: Int64 = 0
        if let deadline {
            let now = MonotonicClock.nanoseconds
            guard now < deadline else { throw .timeout }
            milliseconds = Int64((deadline - now + 999_999) / 1_000_000)
        }
        let result = clinux_limit_receive(descriptor.raw, milliseconds)
        if result < 0 { throw .system(SystemError("SO_RCVTIMEO", code: -result)) }
    }

    /// Writes one message, whole, with a descriptor on its first byte when one is given. Messages do not interleave.
    public func write(_ parts: [ArraySlice<UInt8>], descriptor attached: Int32? = nil) throws(ConnectionError) {
        try write(parts, then: UnsafeRawBufferPointer(start: nil, count: 0), descriptor: attached)
    }

    /// Writes one message whose last bytes lie somewhere else, from where they go to the kernel without a copy.
    public func write(
        _ parts: [ArraySlice<UInt8>], then last: UnsafeRawBufferPointer, descriptor attached: Int32? = nil
    ) throws(ConnectionError) {
        var vectors: [iovec] = []
        let failure = collect(parts[...], last, &vectors) { vectors in
            writing.withLock { _ in send(&vectors, attached ?? -1) }
        }
        if let failure { throw failure }
    }

    private func collect(
        _ parts: ArraySlice<ArraySlice<UInt8>>, _ last: UnsafeRawBufferPointer, _ vectors: inout [iovec],
        _ body: (inout [iovec]) -> ConnectionError?
    ) -> ConnectionError? {
        func append(_ bytes: UnsafeRawBufferPointer) {
            guard !bytes.isEmpty else { return }
            vectors.append(iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count))
        }
        guard let first = parts.first else {
            append(last)
            return body(&vectors)
        }
        return first.withUnsafeBytes { bytes in
            append(bytes)
            return collect(parts.dropFirst(), last, &vectors, body)
        }
    }

    private func send(_ vectors: inout [iovec], _ attached: Int32) -> ConnectionError? {
        var (attached, next, isPartial) = (attached, 0, false)
        let limit = writeLimit.load(ordering: .relaxed)
        let deadline = MonotonicClock.nanoseconds + limit
        while next < vectors.count {
            // A limit of the socket's own would begin anew with every piece that the peer takes.
            let result = vectors.withUnsafeBufferPointer {
                clinux_send(descriptor.raw, $0.baseAddress! + next, $0.count - next, attached, limit == 0 ? 0 : 1)
            }
            if result == -Int(EAGAIN) {
                do throws(ConnectionError) {
                    guard try awaitEvent(Int32(POLLOUT), until: deadline) else { return .timeout }
                    continue
                } catch { return error }
            }
            if result == -Int(EPIPE) || result == -Int(ECONNRESET) { return .closed(partial: isPartial) }
            if result < 0 { return .system(SystemError("sendmsg", code: Int32(-result))) }
            (attached, isPartial) = (-1, true)
            var sent = result
            while next < vectors.count, sent >= vectors[next].iov_len {
                sent -= vectors[next].iov_len
                next += 1
            }
            if sent > 0 {
                vectors[next].iov_base += sent
                vectors[next].iov_len -= sent
            }
        }
        return nil
    }

    /// Writes one message.
    public func write(_ bytes: [UInt8]) throws(ConnectionError) { try write([bytes[...]]) }

    /// Whether the peer, or this side, has ended the connection; bytes that came before may still be there to read.
    public var hasEnded: Bool { clinux_has_ended(descriptor.raw) != 0 }

    /// Ends both directions: reads and writes under way return. The descriptor itself closes with the last reference.
    public func shutdown() { _ = Glibc.shutdown(descriptor.raw, Int32(SHUT_RDWR)) }

    /// Ends the sending direction only: the peer sees the end after what was written.
    public func finishWriting() { _ = Glibc.shutdown(descriptor.raw, Int32(SHUT_WR)) }
}
