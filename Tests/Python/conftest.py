"""The real daemon for tests: one of its own for every test that asks, in a directory of its own."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import kvtc

ROOT = Path(__file__).resolve().parents[2]

# What several tests share is imported by its name.
sys.path.insert(0, str(Path(__file__).with_name("support")))

# Signals that are an order to stop, those of a fault, a debugger or the watchdog with what nobody can catch, and all others.
STOP = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGPWR, signal.SIGXCPU]
LETHAL = [
    signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP,
    signal.SIGSYS,
]
HARMLESS = sorted(set(signal.valid_signals()) - set(STOP) - set(LETHAL))


def binary(name, variable):
    """The built program. Where the variable says which one is meant, a missing one is a failure, else a reason to skip."""
    given = os.environ.get(variable)
    path = Path(given) if given else ROOT / ".build" / "release" / name
    if path.is_file():
        return str(path)
    message = f"{path} is missing: run 'swift build -c release --product {name}'"
    if given:
        pytest.fail(f"{variable} is set but {message}")
    return pytest.skip(message)


class Daemon:
    """A kvtcd of a test. ``settings`` are dotted keys of its configuration; ``prefix`` is a command that runs it."""

    def __init__(self, prefix=(), **settings):
        self.prefix = list(prefix)
        self.program = binary("kvtcd", "KVTCD")
        # Not pytest's tmp_path: a socket's address has room for 107 bytes only.
        self.directory = Path(tempfile.mkdtemp(prefix="kvtcd-"))
        self.socket = str(self.directory / "s")
        self.log = self.directory / "log"
        self.process = None
        self.settings = {
            "socket.path": self.socket,
            "ram.budget": "64MiB",
            "disk.directory": str(self.directory / "state"),
            "disk.budget": "1GiB",
            "workers.threads": 2,
            # What most tests are about comes after coding.
            "sessions.code": "at_once",
        } | settings

    def start(self):
        config = self.directory / "kvtcd.toml"
        config.write_text("".join(f"{key} = {toml(value)}\n" for key, value in self.settings.items()))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            address = str(self.directory / "notify")
            notify.bind(address)
            notify.settimeout(60)
            with open(self.log, "ab") as log:
                environment = os.environ | {"NOTIFY_SOCKET": address}
                self.process = subprocess.Popen(
                    [*self.prefix, self.program, "--config", str(config)], stdout=log, stderr=log, env=environment
                )
            ready = self._wait_ready(notify)
            os.unlink(address)
        self.pid = self._own_pid() if ready else None
        if not ready:
            pytest.fail(f"kvtcd did not start (exit status {self.process.wait()}):\n{self.log.read_text()}")
        return self

    def _wait_ready(self, notify):
        # The process descriptor tells a daemon that gave up from one that is slow.
        descriptor = os.pidfd_open(self.process.pid)
        try:
            while True:
                readable, _, _ = select.select([notify, descriptor], [], [], 60)
                if notify in readable:
                    if b"READY=1" in notify.recv(65536):
                        return True
                elif not readable or descriptor in readable:
                    self.process.kill()
                    return False
        finally:
            os.close(descriptor)

    def _own_pid(self):
        """The daemon's own process, also where another program runs it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        # A prefix may run the daemon in its own place.
        return int(children[0]) if self.prefix and children else self.process.pid

    def connect(self, **options):
        options.setdefault("arena_bytes", 8 << 20)
        return kvtc.connect(self.socket, **options)

    def stop(self, how=signal.SIGTERM):
        """Ends the process and returns its exit status."""
        if self.process.poll() is None:
            os.kill(self.pid, how)
        status = await_end(self.process, 60)
        self.process = None
        return status

    def logged(self, text, times=1):
        """The log, once it holds a text so many times: lines are written behind the daemon's work."""
        until = time.monotonic() + 60
        while (log := self.log.read_text()).count(text) < times:
            assert time.monotonic() < until, f"{text!r} is not {times} times in:\n{log}"
            time.sleep(0.01)
        return log

    @contextlib.contextmanager
    def stopped(self):
        """Within the block none of its threads runs."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def restart(self):
        assert self.stop() == 0, self.log.read_text()
        return self.start()

    def close(self):
        status = self.stop() if self.process is not None else 0
        text = self.log.read_text() if self.log.exists() else ""
        shutil.rmtree(self.directory, ignore_errors=True)
        assert status == 0, f"kvtcd ended with status {status}:\n{text}"


def await_end(process, seconds):
    """Its exit status. Only time counts in which this process runs too: all may have been stopped, as when a machine sleeps."""
    for _ in range(seconds * 20):
        try:
            return process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    raise TimeoutError(f"{process.args} goes on {seconds} s after it was told to end")


def toml(value):
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Digests of the tests' files are kept in a directory of their own, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make_daemon():
    """Makes daemons with settings of the test's own; they are stopped at its end and must have stayed well."""
    made = []

    def make(**settings):
        made.append(Daemon(**settings))
        return made[-1].start()

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemon(make_daemon):
    return make_daemon()


@pytest.fixture
def client(daemon):
    with daemon.connect() as client:
        yield client


@pytest.fixture
def place(tmp_path):
    """Options for a daemon that keeps to the test's directory."""
    return ["--socket", str(tmp_path / "s"), "--directory", str(tmp_path / "state")]


def pytest_collection_modifyitems(items):
    """What takes longest by far begins first, so that no process is left with it alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_gpu.py")
