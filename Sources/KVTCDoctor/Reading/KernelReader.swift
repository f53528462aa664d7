import CLinux
import Glibc
import KVTCSystem

extension Scene.Clock {
    static var current: Scene.Clock {
        var (now, run) = (timespec(), timespec())
        clock_gettime(CLOCK_REALTIME, &now)
        clock_gettime(CLOCK_BOOTTIME, &run)
        var clock = Scene.Clock()
        (clock.now, clock.run) = (now.tv_sec, Double(run.tv_sec) + Double(run.tv_nsec) / 1e9)
        let answer = clinux_is_clock_synchronised()
        clock.isSynchronised = answer < 0 ? nil : answer == 1
        return clock
    }
}

extension Scene.Kernel {
    static var current: Scene.Kernel {
        var kernel = Scene.Kernel()
        kernel.release = SmallFile.text("/proc/sys/kernel/osrelease").trimmed
        let file = clinux_storage_memfd("kvtcctl-doctor", 4096)
        if file < 0 { kernel.sealing = String(cString: strerror(-file)) } else { close(file) }
        kernel.hugePages = chosen(SmallFile.text("/sys/kernel/mm/transparent_hugepage/shmem_enabled"))
        kernel.memoryPressure = pressure(SmallFile.lines("/proc/pressure/memory"))
        return kernel
    }

    /// The word in brackets, as of `always [advise] never`.
    static func chosen(_ text: String) -> String {
        text.split(separator: " ").map { $0.filter { !$0.isNewline } }.first { $0.hasPrefix("[") }.map {
            String($0.dropFirst().dropLast())
        } ?? ""
    }

    /// Percent of the last minute in which something waited: `some avg10=0.00 avg60=0.12 …`.
    static func pressure(_ lines: [Substring]) -> Double? {
        let fields = lines.first { $0.hasPrefix("some ") }?.split(separator: " ") ?? []
        return fields.first { $0.hasPrefix("avg60=") }.flatMap { Double($0.dropFirst(6)) }
    }
}

extension Scene.Groups {
    /// Those of a process as the caller sees them; nil for none.
    init(of pid: Int32?) {
        self.init()
        machineMemory = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
        guard let pid else { return }
        let groups = ControlGroups(process: "\(pid)")
        (memory, processors) = (groups.memory, groups.processors)
        func number(_ file: String) -> Int? { Int(SmallFile.text(file).trimmed) }
        tasks = groups.unified.compactMap { group in
            number("\(group)/pids.max").map { Machine.Limit($0, source: "\(group)/pids.max") }
        }
        if let least = memory.min(by: { $0.value < $1.value })?.source, let slash = least.lastIndex(of: "/") {
            memoryUsed = number("\(least[..<slash])/memory.current")
        }
        kills = groups.unified.first.flatMap { group in
            let file = "\(group)/memory.events"
            let line = SmallFile.lines(file).first { $0.hasPrefix("oom_kill ") }
            return line?.split(separator: " ").last.flatMap { Int($0) }.map { Machine.Limit($0, source: file) }
        }
    }
}
