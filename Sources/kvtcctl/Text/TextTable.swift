/// Columns that are as wide as their widest cell. Where the terminal is too narrow for all, long texts are cut, and then the
/// columns that matter least left out.
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

    /// The lines of the table, the header first, which is bold.
    var lines: [String] {
        let lines = plainLines(in: Terminal.columns)
        return [Terminal.bold(lines[0])] + lines.dropFirst()
    }

    /// The lines as text alone, in so many cells; nil for as many as there are.
    func plainLines(in cells: Int?) -> [String] {
        let columns = cells.map(fitted) ?? columns
        let widths = columns.map(\.width)
        let rows = columns.first?.cells.indices.map { row in TextTable.line(columns, widths) { $0.cells[row] } } ?? []
        return [TextTable.line(columns, widths, \.title)] + rows
    }

    private func fitted(to cells: Int) -> [Column] {
        // Long texts first: a name must not push out what is told of every row.
        var columns = TextTable.cut(columns, to: cells, leaving: 16)
        while TextTable.width(columns) > cells, let last = columns.map(\.rank).max(), last > 0 {
            columns.removeAll { $0.rank == last }
        }
        return TextTable.cut(columns, to: cells, leaving: 8)
    }

    private static func width(_ columns: [Column]) -> Int {
        columns.reduce(0) { $0 + $1.width } + gap * (columns.count - 1)
    }

    /// Shortens texts, the longest first, but none below `least` cells or its title.
    private static func cut(_ columns: [Column], to cells: Int, leaving least: Int) -> [Column] {
        var columns = columns
        var texts = columns.indices.filter { columns[$0].side == .left }
        while width(columns) > cells, let widest = texts.max(by: { columns[$0].width < columns[$1].width }) {
            texts.removeAll { $0 == widest }
            let (own, excess) = (columns[widest].width, width(columns) - cells)
            // No shorter than the next, so that several long ones share what there is.
            let next = texts.map { columns[$0].width }.max() ?? 0
            let limit = max(own - excess, min(next, own - 1), least, Terminal.width(columns[widest].title))
            guard limit < own else { continue }
            columns[widest].cells = columns[widest].cells.map { Terminal.clipped($0, to: limit) }
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
