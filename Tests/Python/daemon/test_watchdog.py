"""What the watchdog hears: signs of life while the daemon gets on, none and the reason while a part of it hangs."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess

import pytest

from conftest import await_end, binary

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


class Watched:
    """A daemon and the service manager that it reports to."""

    def __init__(self, daemon, manager, prefix, log):
        self.manager = manager
        environment = os.environ | {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"}
        command = [*prefix, binary("kvtcd", "KVTCD"), "--config", str(daemon.directory / "kvtcd.toml")]
        self.process = subprocess.Popen(command, stderr=log, env=environment)

    def hears(self, text):
        """Waits until the daemon says so."""
        while text not in self.manager.recv(65536):
            pass

    def end(self):
        children = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split()
        os.kill(int(children[0]) if children else self.process.pid, signal.SIGTERM)
        assert await_end(self.process, 60) == 0


@pytest.fixture
def watched(make_daemon):
    daemon = make_daemon()
    daemon.stop()
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(daemon.directory / "manager"))
        manager.settimeout(60)

        def start(prefix=(), log=None):
            log = log if log is not None else stack.enter_context(open(daemon.log, "ab"))
            made = Watched(daemon, manager, prefix, log)
            stack.callback(made.end)
            made.hears(b"READY=1")
            made.hears(b"WATCHDOG=1")
            return made

        yield daemon, start
    daemon.start()


def faulty(call, fault):
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]


def test_a_log_that_takes_nothing_is_told_even_where_nothing_is_logged(watched):
    _, start = watched
    reading, writing = os.pipe()
    try:
        life = start(log=writing)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(reading, False)
        # Not the daemon's description of the pipe, which has to wait.
        with open(f"/proc/self/fd/{writing}", "wb", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as full:
            while full.write(b"x" * 512):
                pass
        life.hears(b"STATUS=the log takes no line for")
        with contextlib.suppress(BlockingIOError):
            while os.read(reading, 65536):
                pass
        life.hears(b"WATCHDOG=1")
    finally:
        with contextlib.suppress(BlockingIOError):
            while os.read(reading, 65536):
                pass
        os.set_blocking(reading, True)
        os.close(writing)


@needs_strace
def test_a_disk_that_does_not_come_back_is_told(watched):
    _, start = watched
    life = start(faulty("fdatasync", "delay_enter=4000000:when=1"))
    life.hears(b"STATUS=the disk does not answer for")
    # It was slow, after all.
    life.hears(b"WATCHDOG=1")


@needs_strace
def test_a_disk_that_fails_does_not_hang(watched):
    daemon, start = watched
    life = start(faulty("fdatasync", "error=EIO:when=1+"))
    with daemon.connect() as client:
        while client.status()["state"] == "ready":
            life.hears(b"WATCHDOG=1")
        life.hears(b"WATCHDOG=1")
