import Glibc

/// The place of a lock in the order of all that a thread may hold together: it takes only those that come after what it
/// has. Where every thread keeps to one order, no two can wait for each other (Havender, 1968).
///
/// Builds with assertions check that, each thread for itself; nothing of it is left in others.
public struct LockRank: Sendable {
    private let place: UInt8

    /// A place, 0 to 62. Later ones are taken after earlier ones.
    public init(_ place: UInt8) {
        precondition(place < 63, "ranks of locks go from 0 to 62")
        self.place = place
    }

    /// Notes that the thread is about to take such a lock; false when it has one of the same place or a later one.
    @usableFromInline func enter() -> Bool {
        let held = Self.held
        guard held >> UInt(place) == 0 else { return false }
        Self.held = held | 1 << UInt(place)
        return true
    }

    /// Notes that the thread is about to give such a lock back; false when it has none.
    @usableFromInline func leave() -> Bool {
        let held = Self.held
        Self.held = held & ~(1 << UInt(place))
        return held != Self.held
    }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let code = pthread_key_create(&key, nil)
        precondition(code == 0, "no key for what a thread has locked: error \(code)")
        return key
    }()

    /// A bit for each place of which the thread has a lock, in what would be a pointer.
    private static var held: UInt {
        get { UInt(bitPattern: pthread_getspecific(key)) }
        set { pthread_setspecific(key, UnsafeRawPointer(bitPattern: newValue)) }
    }
}
