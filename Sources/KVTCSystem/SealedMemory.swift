import CLinux
import Glibc

/// Bytes in a memory file of which neither a process that has its descriptor nor its maker can change anything any more.
public final class SealedMemory: Sendable {
    private let descriptor: FileDescriptor

    /// A copy of the bytes.
    public init(copying bytes: UnsafeRawBufferPointer, name: String) throws(SystemError) {
        let made = clinux_storage_sealed_copy(name, bytes.baseAddress, bytes.count)
        descriptor = FileDescriptor(owning: try SystemError.check("memfd", made))
    }

    /// The descriptor to send along; it must not outlive this.
    public var rawDescriptor: Int32 { descriptor.raw }
}
