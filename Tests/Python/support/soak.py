"""A mixed load on real daemons that are killed, starved and lied to, with every byte that comes back compared with what was
pushed. Rounds of different kinds follow one another; each has its own daemon, directory and seed.

roomy   the disk holds everything: nothing may be missing that a flush covered, nothing at all while one process lives
tight   RAM and disk overflow all the time: what is pinned and flushed must stay
faulty  the daemon's writes, reads and syncs fail or dawdle (strace): what a flush covered must be there afterwards
lying   its writes and reads claim success without doing anything: pages may be missing, never wrong
steady  nothing is killed: descriptors, arenas, threads and memory must be back where they were

All tenants use the same keys. The last one comes through a container's socket as the user of the first, from which nothing but
that socket tells it apart.

Every daemon gets signals that it has to ignore all the while, and its log is a pipe that is read only now and then.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

import hostile
import soak_tenant
from conftest import HARMLESS, Daemon
from process_state import ProcessState
from synthetic import calibrate

FIRST_USER = 64000
KINDS = ["roomy", "faulty", "tight", "lying", "steady"]
FAULTS = {
    "pwrite64": ["error=EIO", "error=ENOSPC", "delay_enter=20000"],
    "pread64": ["error=EIO", "delay_enter=20000"],
    "fdatasync": ["error=EIO", "error=ENOSPC", "delay_enter=50000"],
}
LIES = {"pwrite64": ["retval=4096"], "pread64": ["retval=4096"], "fdatasync": ["retval=0"]}
MEMORY_SLACK = 64 << 20


@dataclass
class Totals:
    seconds: float = 0
    rounds: dict = field(default_factory=dict)
    seeds: list = field(default_factory=list)
    kills: int = 0
    restarts: int = 0
    signals: int = 0
    faults_injected: int = 0
    hostile_acts: int = 0
    wrong_bytes: int = 0
    lost_after_flush: int = 0
    leaks: int = 0
    crashes_found: int = 0
    verified_pages: int = 0
    exact_pages: int = 0
    lossy_pages: int = 0
    pushed_pages: int = 0
    flushes: int = 0
    drops: int = 0
    hang_ups: int = 0
    problems: list = field(default_factory=list)

    @property
    def is_clean(self):
        return not (self.wrong_bytes or self.lost_after_flush or self.leaks or self.crashes_found or self.problems)


class ReluctantReader:
    """The log of a daemon through a pipe of one page that nobody reads for seconds at a time."""

    def __init__(self, directory, log, rng):
        self.path = directory / "log-pipe"
        os.mkfifo(self.path)
        # For reading and writing, so that it stays open from daemon to daemon.
        self.pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, 4096)
        self.log, self.random, self.over = log, rng, threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    @property
    def prefix(self):
        return ["bash", "-c", f'exec "$0" "$@" 2>"{self.path}"']

    def _run(self):
        while not self.over.wait(self.random.uniform(0, 5)):
            until = time.monotonic() + self.random.uniform(0, 2)
            while time.monotonic() < until and not self.over.wait(0.01):
                self._read()
        self._read()

    def _read(self):
        with contextlib.suppress(BlockingIOError), open(self.log, "ab") as log:
            log.write(os.read(self.pipe, 65536))

    def close(self):
        self.over.set()
        self.thread.join()
        os.close(self.pipe)


class Round:
    """One daemon with its tenants, from start to the last check."""

    def __init__(self, kind, seed, seconds, profile, tenants=3):
        self.kind, self.seed, self.seconds = kind, seed, seconds
        self.random = random.Random(seed)
        self.injected = []
        self.is_injecting = kind in ("faulty", "lying")
        self.found = Totals(seeds=[seed], rounds={kind: 1})
        pick = self.random.choice
        tight = kind == "tight"
        disk = pick([24, 48]) if tight else 4096
        self.daemon = Daemon(
            **{
                "socket.mode": "0666",
                "ram.budget": f"{pick([4, 8]) if tight else pick([6, 16, 64])}MiB",
                "disk.budget": f"{disk}MiB",
                "disk.segment": pick(["1MiB", "4MiB"]) if tight else pick(["2MiB", "16MiB"]),
                "workers.threads": pick([1, 2, 3]),
                "sessions.code": pick(["at_once", "under_pressure", "idle"]),
            }
        )
        self.daemon.directory.chmod(0o755)
        box = str(self.daemon.directory / "box" / "s")
        self.daemon.settings["containers.box"] = box
        profiles = self.daemon.directory / "state" / "profiles"
        profiles.mkdir(parents=True)
        shutil.copy(profile.path, profiles)
        self.terms = soak_tenant.Terms(
            seed=seed,
            socket=self.daemon.socket,
            profile=profile.id,
            is_roomy=not tight,
            is_faulty=self.is_injecting,
            is_lying=kind == "lying",
            conversations=12 if self.is_injecting else 40,
            push_limit=(disk << 20) // (4 * tenants),
        )
        self.log = ReluctantReader(self.daemon.directory, self.daemon.log, random.Random(seed))
        # All with a user of their own, as far as this one may become others.
        users = [FIRST_USER + i for i in range(tenants - 1)] if os.geteuid() == 0 else [os.geteuid()]
        self.tenants = [(user, self.terms) for user in users] + [(users[0], replace(self.terms, socket=box))]

    def run(self):
        start = time.monotonic()
        try:
            self._start()
            tenants = self._fork(start + self.seconds)
            self._disturb(start + self.seconds)
            self._await(tenants, "idle")
            self._check(tenants)
        except BaseException as error:
            self.found.problems.append(f"{self.kind} {self.seed}: {type(error).__name__}: {error}")
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            self._close()
        self.found.seconds = time.monotonic() - start
        return self.found

    def _start(self, faults=True):
        self.trace = self.daemon.directory / "trace"
        # The shell is not traced: its loader reads as well, and what fails there is no fault of the daemon.
        self.daemon.prefix = self.log.prefix + (self._strace() if faults and self.is_injecting else [])
        self.daemon.start()
        self.state = ProcessState(self.daemon)

    def _strace(self):
        faults = LIES if self.kind == "lying" else FAULTS
        call = self.random.choice(list(faults))
        fault = self.random.choice(faults[call])
        # The loader and the configuration's reader come first, whose faults are reasons not to start.
        first, step = self.random.randint(8, 35), self.random.randint(5, 40)
        inject = f"inject={call}:{fault}:when={first}+{step}"
        self.injected.append(inject)
        # The lines tell how many faults there were.
        return ["strace", "-f", "-qq", "-A", "-o", str(self.trace), "-e", f"trace={call}", "-e", inject]

    def _fork(self, deadline):
        context = multiprocessing.get_context("fork")
        tenants = []
        for number, (user, terms) in enumerate(self.tenants):
            here, there = context.Pipe()
            process = context.Process(target=soak_tenant.main, args=(number, user, terms, deadline, there), daemon=True)
            process.start()
            there.close()
            tenants.append((process, here))
        self.stop_hostile = context.Event()
        self.hostile_acts = context.Value("Q", 0)
        self.hostile = context.Process(
            target=hostile.main, args=(self.daemon.socket, self.seed, self.stop_hostile, self.hostile_acts), daemon=True
        )
        self.hostile.start()
        return tenants

    def _disturb(self, deadline):
        """Kills and restarts the daemon at random moments until the time is over."""
        while (rest := deadline - time.monotonic()) > 0:
            self._sleep(min(rest, self.random.uniform(0.3, 5)))
            if self.kind == "steady" or time.monotonic() >= deadline:
                continue
            if self.random.random() < 0.25:
                status = self.daemon.stop(signal.SIGTERM)
                self.found.restarts += 1
                if status != 0 and not self.is_injecting:
                    self._crash(f"exit status {status} after SIGTERM")
            else:
                self._kill()
            self._start()

    def _sleep(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.daemon.process.poll() is not None:
                self._crash(f"exit status {self.daemon.process.returncode}")
                self._start()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.daemon.pid, self.random.choice(HARMLESS))
            self.found.signals += 1
            time.sleep(0.05)

    def _kill(self):
        self.daemon.stop(signal.SIGKILL)
        self.found.kills += 1

    def _crash(self, what):
        self.found.crashes_found += 1
        self.found.problems.append(f"{self.kind} {self.seed}: {what}: {self.daemon.log.read_text()[-2000:]}")

    def _await(self, tenants, wanted):
        for process, channel in tenants:
            if not channel.poll(180):
                raise RuntimeError(f"tenant {process.pid} does not answer")
            message = channel.recv()
            if message != wanted:
                self._add(message)
                raise RuntimeError(f"a tenant ended early: {message.errors}")

    def _check(self, tenants):
        """Everything that was flushed must be there, for a daemon that starts from the disk alone."""
        self.stop_hostile.set()
        self.hostile.join(60)
        self.found.hostile_acts += self.hostile_acts.value
        if self.kind == "steady":
            self._leaked(self.state.leaks(memory_slack=MEMORY_SLACK))
        else:
            self._kill()
            self._start(faults=False)
        for _, channel in tenants:
            channel.send("check")
        for process, channel in tenants:
            if not channel.poll(180):
                raise RuntimeError(f"tenant {process.pid} does not answer")
            self._add(channel.recv())
            process.join(10)
        self._leaked(self.state.leaks())

    def _leaked(self, leaks):
        self.found.leaks += len(leaks)
        self.found.problems += [f"{self.kind} {self.seed}: leak: {leak}" for leak in leaks]

    def _add(self, findings):
        self.found.wrong_bytes += len(findings.wrong)
        self.found.lost_after_flush += len(findings.lost)
        for name in ("verified_pages", "exact_pages", "lossy_pages", "pushed_pages", "flushes", "drops", "hang_ups"):
            setattr(self.found, name, getattr(self.found, name) + getattr(findings, name))
        for what, rows in (("wrong bytes", findings.wrong), ("lost", findings.lost), ("error", findings.errors)):
            self.found.problems += [f"{self.kind} {self.seed}: {what}: {row} {self.injected}" for row in rows[:20]]

    def _close(self):
        if getattr(self, "hostile", None) and self.hostile.is_alive():
            self.hostile.kill()
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        if self.trace.exists():
            with open(self.trace) as lines:
                self.found.faults_injected += sum("(INJECTED)" in line or "(DELAYED)" in line for line in lines)
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            self.daemon.stop(signal.SIGKILL)
        self.log.close()
        shutil.rmtree(self.daemon.directory, ignore_errors=True)


@dataclass
class SyntheticProfile:
    path: Path
    id: str

    @classmethod
    def make(cls, directory):
        path = calibrate(directory)
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest())


def add(total, part):
    for name, value in asdict(part).items():
        if name == "rounds":
            for kind, count in value.items():
                total.rounds[kind] = total.rounds.get(kind, 0) + count
        else:
            setattr(total, name, getattr(total, name) + value)


def soak(seconds, seed, kinds=KINDS, round_seconds=30, say=lambda text: None):
    """Rounds until the time is over."""
    total = Totals()
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="kvtcd-soak-") as directory:
        profile = SyntheticProfile.make(Path(directory))
        number = 0
        while (rest := deadline - time.monotonic()) > 3 or number == 0:
            kind = kinds[number % len(kinds)]
            part = Round(kind, seed + number, max(3, min(round_seconds, rest - 3)), profile).run()
            add(total, part)
            say(
                f"{kind} (seed {seed + number}, {part.seconds:.0f} s): {part.verified_pages} pages verified, {part.kills} kills, "
                f"{part.faults_injected} faults, {part.wrong_bytes} wrong, {part.lost_after_flush} lost, {part.leaks} leaks, "
                f"{part.crashes_found} crashes, {len(part.problems)} problems"
            )
            for problem in part.problems[:10]:
                say(f"    {problem[:1500]}")
            number += 1
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--round-seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"which rounds, of {', '.join(KINDS)}")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if not shutil.which("strace"):
        print("no strace here: rounds of failing calls are left out", file=sys.stderr)
        kinds = [kind for kind in kinds if kind not in ("faulty", "lying")]
    total = soak(options.seconds, options.seed, kinds, options.round_seconds, lambda text: print(text, file=sys.stderr, flush=True))
    report = json.dumps(asdict(total), indent=2)
    if options.json:
        Path(options.json).write_text(report + "\n")
    print(report)
    return 0 if total.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
