import Testing

@testable import KVTCShared

/// Until when large values are waited for.
@Suite struct RequestLimitTests {
    private func request(since: UInt64, deadline: UInt64) -> RedisRequest {
        RedisRequest(.get([1]), since: since, deadline: deadline) { _ in }
    }

    @Test(arguments: [(0, 150), (40, 150), (100, 150), (101, 151), (149, 199), (549, 599), (550, 600), (9000, 600)])
    func itIsWaitedForWhileBytesCome(lastByte: UInt64, limit: UInt64) {
        #expect(request(since: 100, deadline: 150).limit(lastByte: lastByte) == limit)
    }

    @Test func noLimitIsBeforeTheDeadlineOrOverflows() {
        #expect(request(since: 0, deadline: .max).limit(lastByte: 7) == .max)
        #expect(request(since: .max - 5, deadline: .max - 1).limit(lastByte: .max - 2) == .max)
        #expect(request(since: 200, deadline: 100).limit(lastByte: 300) == 200)
    }
}
