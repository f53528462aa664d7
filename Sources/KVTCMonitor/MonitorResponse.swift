import CMicroHTTPD

/// What a request is answered with.
struct MonitorResponse {
    var status: UInt32
    var body: String
    var headers: [(String, String)]

    init(_ status: UInt32, _ body: String, type: String = "text/plain; charset=utf-8", _ more: [(String, String)] = [])
    {
        self.status = status
        self.body = body
        headers =
            [("Content-Type", type), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")] + more
    }

    /// Hands it to the library, which copies it.
    func queue(_ connection: OpaquePointer?) -> MHD_Result {
        var body = body
        guard let response = body.withUTF8({ cmicrohttpd_response($0.baseAddress, $0.count) }) else { return .NO }
        defer { MHD_destroy_response(response) }
        for (name, value) in headers { MHD_add_response_header(response, name, value) }
        return MHD_queue_response(connection, status, response)
    }
}
