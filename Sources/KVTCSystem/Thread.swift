import CLinux
import Glibc

/// A thread of the system that runs one closure.
public struct Thread: Sendable {
    private let handle: pthread_t

    private final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Starts a thread. The name (15 bytes at most) shows in debuggers and in top.
    @discardableResult
    public static func start(
        name: String = "", stackBytes: Int = 1 << 20, _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) -> Thread {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setstacksize(&attributes, stackBytes)
        defer { pthread_attr_destroy(&attributes) }
        var handle = pthread_t()
        let start = Unmanaged.passRetained(Start(body))
        let result = pthread_create(
            &handle, &attributes,
            { argument in
                // Justified: the retained object is taken over exactly once, by the thread it was made for.
                let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
                start.body()
                return nil
            }, start.toOpaque())
        guard result == 0 else {
            start.release()
            throw SystemError("pthread_create", code: result)
        }
        if !name.isEmpty { clinux_name_thread(handle, String(name.prefix(15))) }
        return Thread(handle: handle)
    }

    /// Makes the calling thread one that others wait for, with little to do at a time: when it wakes up, the kernel lets it
    /// go before threads that compute. Where the kernel can't, it takes its turn.
    public static func answerPromptly() { clinux_limit_turns(promptTurn) }

    /// Makes the calling thread one that nobody waits for: others that compute have the processor nine tenths of the time.
    public static func giveWay() { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10) }

    /// Nanoseconds; by default the kernel gives ten times as much and more.
    private static let promptTurn: UInt64 = 100_000

    /// Waits for the closure to return. Once, by one thread.
    public func join() { pthread_join(handle, nil) }

    /// Lets the thread end on its own; it is not joined.
    public func detach() { pthread_detach(handle) }
}
