/// A line that is no request, although it looks like one.
public struct TraceError: Error, Hashable, CustomStringConvertible {
    /// Counted from 1.
    public var line: Int
    /// The field that is wrong; empty where the line as a whole is.
    public var field: String
    /// What is wrong with it.
    public var message: String

    /// Line, field and message.
    public var description: String { "line \(line)\(field.isEmpty ? "" : ", \(field)"): \(message)" }
}

/// What is wrong with a line; its reader adds the number.
struct LineError: Error {
    var field: String
    var message: String

    init(_ field: String, _ message: String) { (self.field, self.message) = (field, message) }
}
