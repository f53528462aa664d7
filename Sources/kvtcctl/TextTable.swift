/// Columns that are as wide as their widest cell. Where the terminal is too narrow for all, those that matter least are left
/// out, and then the widest text is cut.
struct TextTable {
    /// Where a column's cells stand.
    enum Side { case left, right }

    private struct Column {
        var title: String
        var side: Side
        /// The columns with the highest number go first; those with 0 stay.
        var rank: Int
        var cells: [String] = []
        var width: Int { ([title] + cells).map(Terminal.width).max() ?? 0 }
    }

    private var columns: [Column]
    private static let gap = 2

    init(_ columns: [(String, Side)]) { self.init(columns.map { ($0.0, $0.1, 0) }) }

    init(_ columns: [(String, Side, Int)]) {
        self.columns = columns.map { Column(title: Terminal.shown($0.0), side: $0.1, rank: $0.2) }
    }

    mutating func add(_ row: [String]) {
        for (index, cell) in row.enumerated() { columns[index].cells.append(Terminal.shown(cell)) }
    }

    /// The lines of the table, the header first.
    var lines: [String] {
        let columns = Terminal.columns.map(fitted) ?? columns
        let widths = columns.map(\.width)
        let rows = columns.first?.cells.indices.map { row in TextTable.line(columns, widths) { $0.cells[row] } } ?? []
        return [Terminal.bold(TextTable.line(columns, widths, \.title))] + rows
    }

    private func fitted(to cells: Int) -> [Column] {
        var columns = columns
        func excess() -> Int {
            columns.reduce(0) { $0 + $1.width } + TextTable.gap * (columns.count - 1) - cells
        }
        while excess() > 0, let last = columns.map(\.rank).max(), last > 0 {
            columns.removeAll { $0.rank == last }
        }
        var texts = columns.indices.filter { columns[$0].side == .left }
        while excess() > 0, let widest = texts.max(by: { columns[$0].width < columns[$1].width }) {
            // No narrower than the next, so that several long ones share what there is.
            texts.removeAll { $0 == widest }
            let next = texts.map { columns[$0].width }.max() ?? 0
            let least = max(Terminal.width(columns[widest].title), 8)
            let width = max(columns[widest].width - excess(), min(next, columns[widest].width - 1), least)
            guard width < columns[widest].width else { continue }
            columns[widest].cells = columns[widest].cells.map { Terminal.clipped($0, to: width) }
            texts.append(widest)
        }
        return columns
    }

    private static func line(_ columns: [Column], _ widths: [Int], _ cell: (Column) -> String) -> String {
        var text = ""
        for (index, column) in columns.enumerated() {
            let cell = cell(column)
            let padding = String(repeating: " ", count: max(widths[index] - Terminal.width(cell), 0))
            text += (index > 0 ? String(repeating: " ", count: gap) : "")
            text += column.side == .left ? cell + padding : padding + cell
        }
        while text.last == " " { text.removeLast() }
        return text
    }
}
