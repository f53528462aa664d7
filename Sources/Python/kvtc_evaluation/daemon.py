"""A kvtcd of the demo's own: temporary directory, small budgets, started and stopped like a service manager would."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kvtc.client import Client

PATIENCE = 600.0
"""Seconds that programs which measure wait for a daemon, where a worker would rather compute."""


class DaemonFailed(RuntimeError):
    """kvtcd or kvtcctl did not do what the demo asked for; the message ends with what it logged."""


class Daemon:
    """`start` returns when the daemon has said READY. As a context manager: stops it and removes its directory."""

    def __init__(self, kvtcd: Path, kvtcctl: Path, profiles: Sequence[Path], *, ram_mib: int, disk_mib: int) -> None:
        self._kvtcd, self._kvtcctl = kvtcd, kvtcctl
        self._directory = Path(tempfile.mkdtemp(prefix="kvtc-demo-"))
        self.socket = self._directory / "kvtcd.sock"
        self._log = self._directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        directory = self._directory / "profiles"
        directory.mkdir()
        for profile in profiles:
            shutil.copy(profile, directory / profile.name)
        self._config = self._directory / "kvtcd.toml"
        self._config.write_text(_configuration(self._directory, self.socket, directory, ram_mib, disk_mib))

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                try:
                    self._process.wait(20)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def start(self, timeout: float = 30) -> int:
        """Starts the daemon; its process id."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify, self._log.open("ab") as log:
            path = self._directory / "notify"
            path.unlink(missing_ok=True)
            notify.bind(str(path))
            environment = os.environ | {"NOTIFY_SOCKET": str(path), "OPENBLAS_NUM_THREADS": "1"}
            environment.pop("LISTEN_FDS", None)
            command = [str(self._kvtcd), "--config", str(self._config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
            self._await_ready(notify, timeout)
        return self._process.pid

    def _await_ready(self, notify: socket.socket, timeout: float) -> None:
        assert self._process
        deadline = time.monotonic() + timeout
        ended = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(notify, selectors.EVENT_READ)
                selector.register(ended, selectors.EVENT_READ)
                while time.monotonic() < deadline:
                    for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                        if key.fileobj is notify and b"READY=1" in notify.recv(65536).split(b"\n"):
                            return
                        if key.fileobj == ended:
                            raise self._failed(f"kvtcd ended with status {self._process.wait()} before it was ready")
        finally:
            os.close(ended)
        raise self._failed(f"kvtcd was not ready within {timeout:.0f} s")

    def stop(self, timeout: float = 60) -> None:
        """Asks the daemon to end as `systemctl stop` does; it drains and flushes first."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._failed(f"kvtcd did not end within {timeout:.0f} s of SIGTERM") from None
        if status != 0:
            raise self._failed(f"kvtcd ended with status {status}")

    def kill(self) -> None:
        """Ends the daemon as a crash does."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def connect(self, **options: Any) -> Client:
        return Client(str(self.socket), **options)

    def control(self, *arguments: str) -> str:
        """Runs a command of kvtcctl against this daemon; what it prints."""
        command = [str(self._kvtcctl), *arguments, "--socket", str(self.socket)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise self._failed(f"kvtcctl {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _failed(self, message: str) -> DaemonFailed:
        lines = self._log.read_text(errors="replace").splitlines()[-20:] if self._log.exists() else []
        return DaemonFailed("\n".join([message, *lines]))


def _configuration(directory: Path, socket_path: Path, profiles: Path, ram_mib: int, disk_mib: int) -> str:
    return f"""\
[socket]
path = "{socket_path}"

[profiles]
directory = "{profiles}"

[ram]
budget = "{ram_mib}MiB"

[sessions]
# What is measured is what coding comes to.
code = "at_once"

[disk]
directory = "{directory / 'pages'}"
budget = "{disk_mib}MiB"
"""


def until(client: Client, what: str, condition: Callable[[dict[str, Any]], bool], timeout: float = 120) -> None:
    """Waits for a condition of the daemon's status."""
    deadline = time.monotonic() + timeout
    while not condition(client.status()):
        if time.monotonic() > deadline:
            raise DaemonFailed(f"still {what} after {timeout:.0f} s")
        time.sleep(0.05)


def all_coded(status: dict[str, Any]) -> bool:
    """Whether no page waits for its coder."""
    return status["queues"]["encode"] == 0


def kept_bytes(client: Client) -> int:
    """Bytes of all pages as they are kept."""
    return int(client.status()["bytes"]["stored"])
