import KVTCModel

/// What a session may rely on of its pages: how they are coded, and the rows that its policy keeps exact.
package struct Promise {
    package var choice: CodingChoice
    package var protection: Protection

    package init(choice: CodingChoice, protection: Protection) { (self.choice, self.protection) = (choice, protection) }

    /// Whether there is anything to keep of a page that begins at a position.
    package func asks(first: Int, tokens: Int, window: Bool) -> Bool {
        choice.isStrict || !protection.rows(first: first, tokens: tokens, window: window).isEmpty
    }

    /// Whether a page that begins at a position is no worse. `window` says whether rows count that only the window protects.
    package func isKept(by page: CodedPage, first: Int, window: Bool) -> Bool {
        guard choice.isMet(by: page) else { return false }
        let rows = protection.rows(first: first, tokens: page.exact.capacity, window: window)
        return page.exact.isSuperset(of: rows)
    }
}
