/// Why samples did not become a profile: one line that names the file or figure and what to do.
public struct CalibrationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// For people.
    public let description: String

    /// An error with this message.
    public init(_ description: String) { self.description = description }
}
