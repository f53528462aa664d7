"""What a daemon process holds: descriptors, threads, memory. A leak is what is still held when nobody is connected."""

import contextlib
import os
import re
import time
from pathlib import Path

import kvtc


class ProcessState:
    """Remembers a freshly started daemon to compare with later."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.pid = daemon.pid
        self.baseline = self.descriptors()
        self.anonymous = self.memory("RssAnon")

    def descriptors(self):
        """How many of each kind. Segment files come and go with the disk's fill and are not counted."""
        kinds = {}
        for number in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{number}")
            except FileNotFoundError:
                continue
            kind = re.sub(r"[\d:\[\]]+", "", target.removesuffix(" (deleted)"))
            if "segment-" not in target and "kvtc-pages" not in target:
                kinds[kind] = kinds.get(kind, 0) + 1
        return kinds

    def memory(self, field):
        """A size from /proc/PID/status in bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB$", text, re.M)[1]) << 10

    def threads(self):
        """Names of the threads; one that ends while they are read is not among them any more."""
        names = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            # The kernel says ESRCH where the file was opened before the thread ended.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                names.append(Path(f"/proc/{self.pid}/task/{task}/comm").read_text().strip())
        return names

    def leaks(self, memory_slack=None, patience=30):
        """What is held although no client is connected, as sentences; none is good. Connections end a moment after their
        clients do, so this asks until it is good or the patience is over."""
        until = time.monotonic() + patience
        while (found := self._leaks(memory_slack)) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def _leaks(self, memory_slack):
        found = []
        # Before connecting, which is a descriptor itself.
        now = self.descriptors()
        found += [f"{now.get(k, 0)} descriptors of {k}, {n} at the start" for k, n in self.baseline.items() if now.get(k, 0) > n]
        found += [f"{n} descriptors of {k}, none at the start" for k, n in now.items() if k not in self.baseline]
        serving = [name for name in self.threads() if name in ("kvtc-read", "kvtc-answer")]
        found += [f"threads {serving}"] if serving else []
        grown = self.memory("RssAnon") - self.anonymous
        if memory_slack is not None and grown > memory_slack:
            found.append(f"{grown >> 20} MiB of memory more than at the start")
        if not found:
            with kvtc.connect(self.daemon.socket) as client:
                status = client.status()
            found += [f"{status['leases']} leases"] if status["leases"] else []
            found += [f"session {row}" for row in status["sessions"]]
            found += [f"{name}: {count} jobs" for name, count in status["queues"].items() if count]
        return found
