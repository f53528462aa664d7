import KVTCShared
import KVTCSystem
import Testing

/// The client and servers that lie, stop in the middle or say nothing.
@Suite struct HostileServerTests {
    private static let get = RedisCommand.get([1])

    @Test(arguments: [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", RedisFault.malformed), ("$-5\r\n", .malformed),
        ("$1048577\r\n", .oversize),
        ("*9000000000000000000\r\n", .oversize), (":1\r\n:2\r\n+PONG\r\n:4\r\n", .malformed),
    ])
    func whatIsNoAnswerEndsTheConnection(_ text: String, _ fault: RedisFault) throws {
        let server = try ScriptedServer { connection, _ in
            try connection.greet()
            _ = try connection.command()
            try connection.write(text)
            connection.awaitEnd()
        }
        let client = RedisClient(try server.settings())
        defer { client.close() }
        let first = client.ask(HostileServerTests.get)
        if text.hasPrefix(":") {
            // What was asked for is answered; the surplus is what ends the connection.
            #expect(first == .success(.integer(1)))
        } else {
            #expect(first == .failure(fault))
        }
        _ = client.ask(HostileServerTests.get)
        server.awaitConnections(2)
    }

    @Test func aServerThatIsNoneIsLeftAloneAtOnce() throws {
        let server = try ScriptedServer { connection, _ in
            _ = try connection.command()
            try connection.write("SSH-2.0-OpenSSH_9.2\r\n")
            connection.awaitEnd()
        }
        let events = Events()
        let client = RedisClient(try server.settings(), log: events.take)
        defer { client.close() }
        #expect(client.ask(HostileServerTests.get) == .failure(.malformed))
        #expect(client.ask(HostileServerTests.get) == .failure(.open))
        #expect(events.lines.count == 1)
    }

    @Test func halfAnAnswerIsNone() throws {
        let server = try ScriptedServer { connection, number in
            try connection.greet()
            _ = try connection.command()
            try connection.write("$4\r\nab")
            if number > 0 { try connection.write("cd\r\n") }
            connection.finishWriting()
            connection.awaitEnd()
        }
        let client = RedisClient(try server.settings())
        defer { client.close() }
        #expect(client.ask(HostileServerTests.get) == .failure(.unreachable))
        #expect(client.ask(HostileServerTests.get) == .success(.bulk(Array("abcd".utf8))))
    }

    /// A late answer must not be taken for that of the next command.
    @Test func aLateAnswerIsThrownAway() throws {
        let isLate = Monitor(false)
        let server = try ScriptedServer { connection, _ in
            try connection.greet()
            _ = try connection.command()
            try connection.write("$-1\r\n")
            _ = try connection.command()
            _ = isLate.wait { $0 ? true : nil }
            try connection.write("$4\r\nlate\r\n")
            _ = try connection.command()
            try connection.write("$4\r\ngood\r\n")
            connection.awaitEnd()
        }
        var settings = try server.settings()
        settings.connectMilliseconds = 60_000
        let client = RedisClient(settings)
        defer { client.close() }
        // Connected, so that the next one is on its way when its time is over.
        #expect(client.ask(HostileServerTests.get) == .success(.null))
        #expect(client.ask(HostileServerTests.get, seconds: 0.5) == .failure(.timeout))
        isLate.update { $0 = true }
        #expect(client.ask(HostileServerTests.get) == .success(.bulk(Array("good".utf8))))
    }

    @Test func aSilentConnectionIsGivenUpAndMadeAnew() throws {
        let server = try ScriptedServer { connection, number in
            try connection.greet()
            _ = try connection.command()
            if number > 0 { try connection.write("$-1\r\n") }
            connection.awaitEnd()
        }
        let client = RedisClient(try server.settings())
        defer { client.close() }
        // Its deadline is far away; that nothing moves for 200 ms ends it.
        #expect(client.ask(HostileServerTests.get, seconds: 60) == .failure(.timeout))
        #expect(client.ask(HostileServerTests.get, seconds: 60) == .success(.null))
    }

    @Test func aGreetingThatIsNotAnsweredIsNoConnection() throws {
        let server = try ScriptedServer { connection, number in
            if number > 0 {
                try connection.greet()
                // The probe, and what follows it.
                #expect(try connection.command() == ["PING"])
                try connection.write("+PONG\r\n")
            }
            connection.awaitEnd()
        }
        let client = RedisClient(try server.settings())
        defer { client.close() }
        #expect(client.ask(HostileServerTests.get, seconds: 60) == .failure(.unreachable))
        #expect(client.ask(HostileServerTests.get) == .failure(.open))
        #expect(client.status().first?.lastFault?.reason.contains("first commands within 200 ms") == true)
        server.awaitConnections(2)
    }

    @Test func aServerThatIsLoadingIsAskedAgainLater() throws {
        let server = try ScriptedServer { connection, number in
            while true {
                let name = try connection.command()[0]
                try connection.write(
                    number == 0 ? "-LOADING Redis is loading\r\n" : name == "PING" ? "+PONG\r\n" : "$-1\r\n")
            }
        }
        let client = RedisClient(try server.settings())
        defer { client.close() }
        #expect(client.ask(HostileServerTests.get) == .failure(.loading))
        #expect(client.ask(HostileServerTests.get) == .failure(.open))
        #expect(client.ask(HostileServerTests.get, until: { $0 == .success(.null) }))
    }

    /// A long command waits for its own connection only.
    @Test func whatIsLongDoesNotHoldUpWhatIsShort() throws {
        let server = try ScriptedServer { connection, _ in
            try connection.greet()
            let command = try connection.command()
            // Only the connection for lookups answers.
            if command[0] == "GETRANGE" { try connection.write("$1\r\nx\r\n") }
            connection.awaitEnd()
        }
        var settings = try server.settings()
        settings.connectMilliseconds = 60_000
        let client = RedisClient(settings)
        defer { client.close() }
        let others = Monitor(0)
        client.send([.get([1]), .set([1], [UInt8](repeating: 1, count: 8 << 20))], until: MonotonicClock.after(60)) {
            _, _ in
            others.update { $0 += 1 }
        }
        #expect(client.ask(.getRange([1], 0...0)) == .success(.bulk([120])))
        #expect(others.withLock { $0 } == 0)
    }

    @Test func moreThanTheQueueHoldsIsRefusedAtOnce() throws {
        let server = try ScriptedServer { connection, _ in connection.awaitEnd() }
        var settings = try server.settings()
        settings.connectMilliseconds = 60_000
        let client = RedisClient(settings)
        defer { client.close() }
        client.send([.set([1], [UInt8](repeating: 1, count: 100 << 20))], until: MonotonicClock.after(60)) { _, _ in }
        #expect(client.ask(.set([2], [UInt8](repeating: 1, count: 100 << 20)), seconds: 60) == .failure(.busy))
    }
}
