/// A failed device call: which one, on what, and the errno it gave.
public struct DeviceError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call's name, as in the manual.
    public let operation: String
    /// The file or directory.
    public let path: String
    /// The errno value.
    public let code: Int32

    /// A failure of a call.
    public init(operation: String, path: String, code: Int32) {
        self.operation = operation
        self.path = path
        self.code = code
    }

    /// The failure in words.
    public var description: String { "\(operation) \(path): \(DeviceError.text(code))" }
}
