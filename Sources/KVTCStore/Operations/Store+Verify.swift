/// How far a verification is and what it has found.
public struct VerifyProgress: Hashable, Sendable {
    /// Copies looked at; a page in RAM and on disk is two.
    public var checked: UInt64 = 0
    /// Copies there are, as far as is known.
    public var total: UInt64 = 0
    /// Bytes read.
    public var bytes: UInt64 = 0
    /// Copies that were not what was put, and have been taken out.
    public var corrupt: UInt64 = 0
    /// Copies that the device failed to deliver.
    public var unreadable: UInt64 = 0

    /// Nothing yet.
    public init() {}
}

extension Store {
    private struct Copy {
        let key: StoreKey
        let place: Place

        enum Place {
            case ram(RAMExtent, hash: UInt64)
            case disk(DiskLocation, length: Int)
        }
    }

    /// Reads every page from every tier and checks it while the store goes on working. A bad copy is taken out; a page that
    /// has another, good one stays. Pages that come meanwhile are not looked at. `report` is called after every page; when
    /// it throws, the verification ends.
    public func verify<Failure: Error>(
        _ report: (VerifyProgress) throws(Failure) -> Void
    ) throws(Failure) -> VerifyProgress {
        var progress = VerifyProgress()
        let segments = log.withLock { $0?.segments.map(\.segment.id) ?? [] }
        let (inRAM, onDisk) = index.withLock { index in
            (index.inRAM, index.tenants.values.reduce(0) { $0 + $1.usage.diskPages })
        }
        progress.total = UInt64(inRAM.count + onDisk)
        for number in inRAM {
            if let copy = copyInRAM(number) { try check(copy, &progress, report) }
        }
        for segment in segments {
            for copy in copies(in: segment) { try check(copy, &progress, report) }
        }
        progress.total = progress.checked
        return progress
    }

    private func copyInRAM(_ number: UInt32) -> Copy? {
        index.withLock { index in
            // It may have left RAM by now.
            guard [.expanded, .inRAM].contains(index.pages[number].state) else { return nil }
            let entry = index.entry(number)
            return entry.ram.map { Copy(key: entry.key, place: .ram($0, hash: entry.hash!)) }
        }
    }

    /// In the order of the file, which disks like.
    private func copies(in segment: UInt64) -> [Copy] {
        index.withLock { index in
            let numbers = index.pages.numbers(in: segment) + index.pages.compact(index.inRAM, in: segment)
            let compact = numbers.map { number in
                let page = index.pages[number]
                return (page.key, index.pages.location(number)!, page.bytes)
            }
            let expanded = index.pages.entries.compactMap { entry in
                entry.disk.flatMap { $0.segment.id == segment ? (entry.key, $0, entry.length) : nil }
            }
            return (expanded + compact).sorted { $0.1.offset < $1.1.offset }.map {
                Copy(key: $0.0, place: .disk($0.1, length: $0.2))
            }
        }
    }

    private func check<Failure: Error>(
        _ copy: Copy, _ progress: inout VerifyProgress, _ report: (VerifyProgress) throws(Failure) -> Void
    ) throws(Failure) {
        progress.checked += 1
        progress.total = max(progress.total, progress.checked)
        switch copy.place {
        case .ram(let extent, let hash):
            progress.bytes += UInt64(extent.length)
            if checksum(extent.bytes) != hash {
                progress.corrupt += 1
                reject(copy.key, inRAM: extent)
            }
        case .disk(let location, let length):
            let buffer = RecordBuffer(bytes: location.recordBytes)
            switch readRecord(copy.key, location, length: length, into: buffer) {
            case .intact: progress.bytes += UInt64(location.recordBytes)
            case .failed: progress.unreadable += 1
            case .corrupt:
                progress.corrupt += 1
                reject(copy.key, at: location)
            }
        }
        try report(progress)
    }
}
