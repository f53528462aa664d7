struct DiskLog: Sendable {
    static func maxPayloadBytes(_ configuration: StoreConfiguration) -> Int { 0 }
}
