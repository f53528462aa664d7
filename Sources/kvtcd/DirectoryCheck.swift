import Foundation
import KVTCCommandLine
import KVTCProtocol
import KVTCStore

/// `kvtcd --fsck`: what is in the directory of a disk tier, and how it is.
struct DirectoryCheck {
    var directory: String
    var asJSON: Bool

    private struct Report: Encodable {
        struct File: Encodable {
            var name: String, bytes: Int, verdict: String, page_records: Int, damaged_bytes: Int, torn_bytes: Int
            var sealed: Bool
        }
        var directory: String, damaged: Bool, pages: Int, page_bytes: Int, files: [File]
    }

    private struct Failure: Encodable {
        var directory: String, error: String
    }

    /// Prints the result; the exit code is as for fsck(8): 0 good, 4 damaged, 8 not checked.
    func run() -> Int32 {
        StandardOutput.fail(with: 8)
        let check: StoreCheck
        let isTerminal = isatty(STDERR_FILENO) == 1
        do throws(StoreError) {
            check = try StoreCheck.run(directory: directory) { done, total in
                guard isTerminal, total > 0 else { return }
                standardError("\r\u{1B}[K\(100 * done / total) %")
            }
        } catch {
            if isTerminal { standardError("\r\u{1B}[K") }
            standardError("kvtcd: \("\(error)".visible)\n")
            if asJSON { print(json(Failure(directory: directory, error: "\(error)"))) }
            if case .locked = error { standardError("A daemon uses it: 'kvtcctl verify' checks it meanwhile.\n") }
            return 8
        }
        if isTerminal { standardError("\r\u{1B}[K") }
        print(asJSON ? json(report(check)) : text(check))
        return check.isDamaged ? 4 : 0
    }

    private func text(_ check: StoreCheck) -> String {
        var lines = check.files.map { file in
            let verdict = file.verdict.rawValue.padding(toLength: 10, withPad: " ", startingAt: 0)
            var parts = ["\(file.bytes) bytes", "\(file.pageRecords) pages"]
            if file.damagedBytes > 0 { parts.append("\(file.damagedBytes) bytes damaged") }
            if file.tornBytes > 0 { parts.append("\(file.tornBytes) bytes at the end that a start cuts off") }
            return "\(file.name)  \(verdict)  \(parts.joined(separator: ", "))"
        }
        let damaged = check.files.count { ![.clean, .torn].contains($0.verdict) }
        lines.append(
            "\(check.files.count) files, \(damaged) damaged; a start finds \(check.pages) pages of \(check.pageBytes) bytes"
        )
        return lines.joined(separator: "\n")
    }

    private func report(_ check: StoreCheck) -> Report {
        Report(
            directory: directory, damaged: check.isDamaged, pages: check.pages, page_bytes: check.pageBytes,
            files: check.files.map { file in
                Report.File(
                    name: file.name, bytes: file.bytes, verdict: file.verdict.rawValue, page_records: file.pageRecords,
                    damaged_bytes: file.damagedBytes, torn_bytes: file.tornBytes, sealed: file.isSealed)
            })
    }
}

/// A report in one line, its keys in order.
func json(_ report: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(report) else { return "{}" }
    return String(decoding: data, as: UTF8.self)
}
