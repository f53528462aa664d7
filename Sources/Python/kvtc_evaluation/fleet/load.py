"""A worker that pulls pages of a known content again and again, and says what came of it.

Reads a request (JSON) from standard input; says "ready", runs until that ends, then writes one JSON line.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from kvtc.client import Client
from kvtc.protocol.errors import KvtcError, RequestTimedOut

from .host import Host
from .pages import Pages

STUCK = 15.0
"""Seconds that nothing may take: more than a daemon that is killed needs to be there again."""
AT_ONCE = 8


@dataclass
class Outcome:
    """Of all calls of a worker: pages that came and did not, wrong ones among those that came, calls that took longer than they may or
    failed, and seconds of the longest."""

    calls: int = 0
    hits: int = 0
    misses: int = 0
    wrong: int = 0
    stuck: int = 0
    failed: int = 0
    longest: float = 0.0


class Load:
    """A process that is the load on a host, as the host's user."""

    def __init__(self, host: Host, pages: Pages, seed: int) -> None:
        command = [sys.executable, "-m", "kvtc_evaluation.fleet.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        request = {"socket": str(host.socket), "user": host.user, "pages": asdict(pages), "seed": seed}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("a worker did not begin")

    def end(self) -> Outcome:
        """Has it end and tell."""
        text, _ = self._process.communicate(timeout=4 * STUCK)
        if self._process.returncode != 0:
            raise RuntimeError(f"a worker ended with status {self._process.returncode}")
        return Outcome(**json.loads(text))

    def kill(self) -> None:
        """Ends it whatever it does."""
        self._process.kill()
        self._process.communicate()


def main() -> int:
    request = json.loads(sys.stdin.readline())
    if os.geteuid() == 0 and request["user"] != 0:
        os.setgroups([])
        os.setgid(request["user"])
        os.setuid(request["user"])
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    print(json.dumps(asdict(_run(request, is_over))), flush=True)
    return 0


def _run(request: dict[str, Any], is_over: threading.Event) -> Outcome:
    pages = Pages(**request["pages"])
    choice = random.Random(request["seed"])
    outcome = Outcome()
    with Client(request["socket"], timeout=STUCK, reconnect=STUCK, arena_bytes=16 << 20) as client:
        session = pages.open(client)
        print("ready", flush=True)
        while not is_over.is_set():
            indices = choice.sample(range(pages.count), min(AT_ONCE, pages.count))
            begin = time.monotonic()
            try:
                pulled = pages.pull(session, indices)
                outcome.hits += pulled.hits
                outcome.misses += pulled.misses
                outcome.wrong += pulled.wrong
            except RequestTimedOut:
                outcome.stuck += 1
            except KvtcError as error:
                print(f"load: {error}", file=sys.stderr)
                outcome.failed += 1
            took = time.monotonic() - begin
            outcome.stuck += took > STUCK
            outcome.longest = max(outcome.longest, took)
            outcome.calls += 1
    return outcome


if __name__ == "__main__":
    sys.exit(main())
