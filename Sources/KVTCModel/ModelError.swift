/// A value that has no meaning in the model, or lies outside its limits.
public struct ModelError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The path of the value at fault, such as `geometry.heads`.
    public let field: String
    /// What is wrong and what would be right.
    public let message: String

    /// A complaint about one field.
    public init(field: String, _ message: String) {
        self.field = field
        self.message = message
    }

    /// One line for people.
    public var description: String { "\(field): \(message)" }
}
