import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// The bytes on disk, which must not change under the same format number.
@Suite struct DiskFormatTests {
    private let path = "/store/segment-0000000000000001.log"

    private func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// One page, its removal, the seal.
    private func written() throws -> (device: MemoryDevice, file: [UInt8]) {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        let name = StoreKey(tenant: 0x0102_0304, page: (0..<32).map { UInt8($0) })!
        let attributes = PageAttributes(
            priority: 200, pinned: true, expires: 2_000_000, firstPosition: 64, tokens: 16, rawBytes: 0x1122_3344,
            coded: true)
        #expect(store.put(name, bytes: Array("a page".utf8), attributes: attributes) == .stored)
        try store.flush()
        #expect(store.remove(name))
        try store.close()
        return (device, device.contents(path))
    }

    @Test func goldenSegment() throws {
        let file = try written().file
        #expect(file.count == 64 + 192 + 128 + 320 + 128)
        // magic "KVTCSEG\n", version, header bytes, id, salt, created, reserved, checksum
        #expect(
            hex(file[0..<64])
                == "4b5654435345470a" + "02000000" + "40000000" + "0100000000000000" + "0100175a00000000"
                + "40420f0000000000" + String(repeating: "0", count: 32) + goldenSums[0])
        // magic "KVR1", kind, flags, priority, 0, tenant, tokens, first position, 0
        #expect(
            hex(file[64..<192])
                == "4b565231" + "01" + "07" + "c8" + "00" + "04030201" + "10000000" + "40000000" + "00000000"
                // payload bytes, raw bytes, expires, segment, offset
                + "0600000000000000" + "4433221100000000" + "80841e0000000000" + "0100000000000000"
                + "4000000000000000"
                // key, payload checksum, reserved, header checksum
                + hex(0..<32) + goldenSums[1] + String(repeating: "0", count: 32) + goldenSums[2])
        #expect(file[192..<198].elementsEqual("a page".utf8) && file[198..<256].allSatisfy { $0 == 0 })
        #expect(hex(file[256..<268]) == "4b565231" + "02" + "00" + "80" + "00" + "04030201")
        // The index: two entries. Kind, flags, priority, 0, tenant, tokens, first position, payload bytes, raw bytes, expires,
        // offset, key, payload checksum.
        #expect(hex(file[384..<396]) == "4b565231" + "05" + "00" + "80" + "00" + "00000000")
        #expect(hex(file[408..<416]) == "b000000000000000")
        #expect(
            hex(file[512..<600])
                == "01" + "07" + "c8" + "00" + "04030201" + "10000000" + "40000000" + "0600000000000000"
                + "4433221100000000" + "80841e0000000000" + "4000000000000000" + hex(0..<32) + goldenSums[1])
        #expect(
            hex(file[600..<688])
                == "02" + "00" + "80" + "00" + "04030201" + String(repeating: "0", count: 64) + "0001000000000000"
                + hex(0..<32) + "0000000000000000")
        // The seal names the offset of the index where a page has its size before coding.
        #expect(hex(file[704..<716]) == "4b565231" + "04" + "00" + "80" + "00" + "00000000")
        #expect(hex(file[736..<744]) == "8001000000000000")
    }

    /// XXH3-64 of: the segment header, the payload, the record header seeded with the salt.
    private let goldenSums = ["01974f65e526120f", "afea946b3c60f61d", "02fd81786785379a"]

    @Test func goldenSegmentIsRead() throws {
        let (device, file) = try written()
        // Without the tombstone and the seal the page is there.
        device.replaceContents(path, Array(file[..<256]))
        let store = try Store.open(.memory(device))
        let name = StoreKey(tenant: 0x0102_0304, page: (0..<32).map { UInt8($0) })!
        #expect(store.bytes(name)?.array == Array("a page".utf8))
        #expect(store.attributes(name)?.rawBytes == 0x1122_3344 && store.attributes(name)?.priority == 200)
    }

    @Test func newerFormatIsRefusedAndLeftAlone() throws {
        let (device, file) = try written()
        var newer = file
        newer[8] = 3
        let sum = newer[..<56].withUnsafeBytes { checksum($0) }
        withUnsafeBytes(of: sum.littleEndian) { newer.replaceSubrange(56..<64, with: $0) }
        device.replaceContents(path, newer)
        // A damaged file beside it is not touched either.
        device.replaceContents("/store/segment-0000000000000000.log", [UInt8](repeating: 1, count: 500))
        let names = device.names
        #expect(throws: StoreError.newerFormat(path: path, found: 3, supported: 2)) {
            try Store.open(.memory(device))
        }
        #expect(device.names == names && device.contents(path) == newer)
        #expect(
            StoreError.newerFormat(path: path, found: 3, supported: 2).description
                == "/store/segment-0000000000000001.log has store format 3, this version reads up to 2")
    }

    @Test func otherFilesAreLeftAlone() throws {
        let device = MemoryDevice()
        for name in ["notes.txt", "segment-1.log", "segment-000000000000000g.log", "segment-0000000000000001.txt"] {
            device.replaceContents("/store/" + name, [1, 2, 3])
        }
        let names = device.names
        let store = try Store.open(.memory(device))
        #expect(store.statistics.segments == 0 && device.names == names)
    }
}
