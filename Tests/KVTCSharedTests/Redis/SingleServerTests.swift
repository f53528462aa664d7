import Foundation
import KVTCShared
import KVTCSystem
import Testing

/// The client and a real server.
@Suite struct SingleServerTests {
    private static let key = Array("kvtc:p:1".utf8)

    @Test func everyCommandHasItsAnswer() throws {
        let server = try RedisServer()
        let client = RedisClient(try server.settings)
        defer { client.close() }
        let value = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) }
        let key = SingleServerTests.key
        #expect(client.ask(.get(key)) == .success(.null))
        #expect(client.ask(.getRange(key, 0...9)) == .success(.bulk([])))
        #expect(client.ask(.set(key, value, milliseconds: 1_000_000)) == .success(.simple("OK")))
        #expect(client.ask(.get(key)) == .success(.bulk(value)))
        #expect(client.ask(.getRange(key, 2...9)) == .success(.bulk(Array(value[2...9]))))
        #expect(client.ask(.exists(key)) == .success(.integer(1)))
        #expect(client.ask(.touch(key)) == .success(.integer(1)))
        #expect(client.ask(.expire(key, milliseconds: 500_000)) == .success(.integer(1)))
        let left = try client.ask(RedisCommand([Array("PTTL".utf8), key], key: 1)).get().integer
        #expect((1...500_000).contains(left ?? 0))
        #expect(client.ask(.unlink(key)) == .success(.integer(1)))
        #expect(client.ask(.unlink(key)) == .success(.integer(0)))
        #expect(client.ask(RedisCommand("NONSENSE")) == .failure(.refused))
        #expect(client.askMasters(RedisCommand("PING")).map(\.result) == [.success(.simple("PONG"))])
        let status = try #require(client.status().first)
        #expect(status.bytesOut > 300_000)
        #expect(status.bytesIn > 300_000)
        #expect(status.inFlight == 0)
        #expect(status.breaker == "closed")
        #expect(status.lastFault?.reason.contains("NONSENSE") == true)
        #expect(status.microseconds(0.99) > 0)
    }

    @Test func manyCommandsGoTogetherAndAnswersMatch() throws {
        let server = try RedisServer()
        let client = RedisClient(try server.settings)
        defer { client.close() }
        let keys = (0..<5000).map { Array("k\($0)".utf8) }
        let values = keys.map { Array("value of \(String(decoding: $0, as: UTF8.self))".utf8) }
        #expect(client.ask(zip(keys, values).map { .set($0, $1) }).allSatisfy { $0 == .success(.simple("OK")) })
        #expect(client.ask(keys.map { .get($0) }) == values.map { .success(.bulk($0)) })
        #expect(client.ask(keys.map { .getRange($0, 0...1_000_000) }) == values.map { .success(.bulk($0)) })
    }

    @Test func passwordAndUser() throws {
        let server = try RedisServer(["--requirepass", "secret"])
        let key = SingleServerTests.key
        func settings(_ user: String?, _ password: String?) throws -> RedisSettings {
            var settings = RedisSettings(
                url: try RedisURL("unix://" + (user.map { $0 + "@" } ?? "") + server.directory.file("s")))
            settings.password = password
            return settings
        }
        let made = RedisClient(try settings(nil, "secret")).ask(
            RedisCommand("ACL", "SETUSER", "me", "on", ">mine", "~*", "+@all"))
        #expect(made == .success(.simple("OK")))
        for (user, password) in [(nil, "secret"), ("me", "mine")] as [(String?, String)] {
            #expect(RedisClient(try settings(user, password)).ask(.get(key)) == .success(.null))
        }
        for (user, password) in [(nil, "wrong"), ("me", "secret"), ("unknown", "mine")] as [(String?, String)] {
            let events = Events()
            let client = RedisClient(try settings(user, password), log: events.take)
            #expect(client.ask(.get(key)) == .failure(.denied))
            #expect(client.ask(.get(key)) == .failure(.open))
            #expect(events.wait("denied")?.contains("WRONGPASS") == true)
        }
        let client = RedisClient(try settings(nil, nil))
        #expect(client.ask(.get(key)) == .failure(.denied))
        #expect(client.ask(.get(key)) == .failure(.open))
        // Asked for a password that the server has not.
        let open = try RedisServer()
        var one = try open.settings
        one.password = "secret"
        #expect(RedisClient(one).ask(.get(key)) == .failure(.denied))
    }

    @Test func aNumberedDatabase() throws {
        let server = try RedisServer(onPort: "--port")
        let clients = try ["", "/3", "/99"].map {
            RedisClient(RedisSettings(url: try RedisURL("redis://127.0.0.1:\(server.port)\($0)")))
        }
        #expect(clients[1].ask(.set(SingleServerTests.key, [1])) == .success(.simple("OK")))
        #expect(clients[0].ask(.get(SingleServerTests.key)) == .success(.null))
        #expect(clients[1].ask(.get(SingleServerTests.key)) == .success(.bulk([1])))
        #expect(clients[2].ask(.get(SingleServerTests.key)) == .failure(.denied))
        #expect(clients[2].status().first?.lastFault?.reason.contains("DB index") == true)
    }

    @Test func aServerWithoutMemorySaysSo() throws {
        let server = try RedisServer(["--maxmemory", "1", "--maxmemory-policy", "noeviction"])
        let client = RedisClient(try server.settings)
        for _ in 0..<5 { #expect(client.ask(.set(SingleServerTests.key, [1])) == .failure(.full)) }
        #expect(client.ask(.get(SingleServerTests.key)) == .success(.null))
    }

    @Test func aServerThatStopsCostsNoMoreThanTheDeadlineAndIsFoundAgain() throws {
        let server = try RedisServer()
        let events = Events()
        let client = RedisClient(try server.settings, log: events.take)
        defer { client.close() }
        let command = RedisCommand.get(SingleServerTests.key)
        #expect(client.ask(command) == .success(.null))
        server.freeze()
        for _ in 0..<3 { #expect(client.ask(command, seconds: 0.005) == .failure(.timeout)) }
        #expect(client.ask(command) == .failure(.open))
        #expect(events.wait("timeout") != nil)
        server.thaw()
        // The probe has it half open, the first answer closed.
        #expect(client.ask(command, until: { $0 == .success(.null) }))
        #expect(events.wait("answers again") != nil)
        #expect(client.status().map(\.breaker) == ["closed"])
    }

    @Test func aServerThatRestartsIsFoundAgain() throws {
        let server = try RedisServer()
        let client = RedisClient(try server.settings)
        defer { client.close() }
        let command = RedisCommand.get(SingleServerTests.key)
        #expect(client.ask(command) == .success(.null))
        server.kill()
        #expect(client.ask(command, until: { $0 == .failure(.open) }))
        let again = try RedisServer(in: server.directory)
        #expect(client.ask(command, until: { $0 == .success(.null) }))
        again.kill()
    }

    @Test func nothingIsLeftUnansweredWhenTheClientCloses() throws {
        let server = try RedisServer()
        let client = RedisClient(try server.settings)
        server.freeze()
        defer { server.thaw() }
        let answers = Monitor(0)
        client.send((0..<1000).map { .get(Array("\($0)".utf8)) }, until: MonotonicClock.after(60)) { _, result in
            answers.update { $0 += result == .failure(.unreachable) ? 1 : 1_000_000 }
        }
        client.close()
        #expect(answers.wait { $0 >= 1000 ? $0 : nil } == 1000)
        #expect(client.ask(.get([1])) == .failure(.unreachable))
    }
}
