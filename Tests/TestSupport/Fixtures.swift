import Foundation

/// A file under Tests, found from where this source is.
public func testFile(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(name)
        .path
}
