import KVTCPlan
import Testing

@Suite struct PictureTests {
    private func svg(_ setups: [Setup], gpuMemory: Int = 0) throws -> String? {
        Picture(
            try Planner(trace: PlannerTests.trace(200), shape: PlannerTests.shape, gpuMemory: gpuMemory).plan(setups))?
            .svg
    }

    private let setups = [1.0, 2, 16].flatMap { ratio in
        [16, 64].map { Setup(ram: $0 << 20, coding: Coding(ratio: ratio)) }
    }

    @Test func everyLineIsNamedAndToldInWords() throws {
        let text = try #require(try svg(setups))
        for name in [
            "raw", "lossless, 2×", "coded 16×, ", "endless memory ", "16 MiB", "64 MiB", "200 requests, 1 KiB a token",
        ] {
            #expect(text.contains(name), "\(name)")
        }
        // Two marks a line, and three lines.
        #expect(text.components("<circle ") == 6)
        #expect(text.components("class=\"line ") == 3)
        #expect(text.contains("<title>") && text.contains("<desc>") && text.contains("prefers-color-scheme:dark"))
    }

    @Test func elementsAreClosed() throws {
        let text = try #require(try svg(setups, gpuMemory: 1 << 20))
        for name in ["svg", "title", "desc", "text", "style"] {
            #expect(text.components("<\(name)") == text.components("</\(name)>"), "\(name)")
        }
        #expect(text.contains("beside 1 MiB of GPU memory"))
        #expect(!text.contains("nan") && !text.contains("inf"))
    }

    @Test func disksAreDashed() throws {
        let text = try #require(try svg([Setup(ram: 16 << 20), Setup(ram: 16 << 20, disk: 1 << 30)]))
        #expect(text.contains("raw + 1 GiB disk"))
        #expect(text.components(" dashed\"") == 1)
    }

    @Test func nothingIsNoPicture() throws { #expect(try svg([]) == nil) }
}

extension String {
    /// How often a text is in it.
    fileprivate func components(_ text: String) -> Int { ranges(of: text).count }
}
