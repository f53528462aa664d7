import KVTCShared
import Testing

@Suite struct RedisURLTests {
    @Test(arguments: [
        ("redis://kv", ["kv:6379"], false, false, nil, 0),
        ("redis://kv-a:7000/3", ["kv-a:7000"], false, false, nil, 3),
        ("REDISS://me@kv.example.org/", ["kv.example.org:6379"], true, false, "me", 0),
        ("redis://[fe80::1%eth0]:6380", ["[fe80::1%eth0]:6380"], false, false, nil, 0),
        ("redis://[::1]", ["[::1]:6379"], false, false, nil, 0),
        ("rediss+cluster://me@a,b:7001,[::1]:7002", ["a:6379", "b:7001", "[::1]:7002"], true, true, "me", 0),
        ("redis+cluster://10.0.0.1", ["10.0.0.1:6379"], false, true, nil, 0),
        ("unix:///run/redis/redis.sock", ["/run/redis/redis.sock"], false, false, nil, 0),
        ("unix://me@/run/a@b", ["/run/a@b"], false, false, "me", 0),
    ])
    func reads(
        _ text: String, _ addresses: [String], _ isTLS: Bool, _ isCluster: Bool, _ user: String?, _ database: Int
    ) throws {
        let url = try RedisURL(text)
        #expect(url.addresses.map(\.description) == addresses)
        #expect((url.isTLS, url.isCluster, url.user, url.database) == (isTLS, isCluster, user, database))
    }

    @Test(arguments: [
        ("kv-a:6379", "begins with none of"), ("http://kv", "begins with none of"), ("", "begins with none of"),
        ("redis://:secret@kv", "password_file"), ("redis://me:secret@kv", "password_file"),
        ("redis://@kv", "user before '@'"),
        ("redis://", "'' is no host"), ("redis://a b", "space"), ("redis://a\n", "control"),
        ("redis://a$b", "is no host"),
        ("redis://a:0", "is no port"), ("redis://a:65536", "is no port"), ("redis://a:", "is no port"),
        ("redis://a:+1", "is no port"),
        ("redis://a:18446744073709551617", "is no port"), ("redis://::1", "brackets"), ("redis://[::1", "lacks a ']'"),
        ("redis://[kv]", "no IPv6"), ("redis://[::1]7000", "followed by"), ("redis://a/x", "number of a database"),
        ("redis://a/-1", "number of a database"), ("redis://a/1/2", "number of a database"),
        ("redis://a,b", "redis+cluster://"),
        ("redis+cluster://a,b/1", "no numbered databases"), ("redis+cluster://a,a:6379", "named twice"),
        ("redis+cluster://a,,b", "is no host"),
        ("unix://", "absolute path"), ("unix://run/x", "absolute path"),
        ("unix:///" + String(repeating: "x", count: 107), "107 bytes"),
    ])
    func refuses(_ text: String, _ why: String) {
        #expect {
            try RedisURL(text)
        } throws: {
            "\($0)".contains(why)
        }
    }

    @Test func aPasswordIsNotRepeated() {
        #expect(throws: RedisURLError.password) { try RedisURL("redis://me:secret@kv") }
        #expect(!"\(RedisURLError.password)".contains("secret"))
    }
}
