"""A cluster of three masters and three replicas on this machine, with TLS and a password, that can be treated badly."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .redis_connection import RedisConnection

HOST = "127.0.0.1"
# Debian's redis-tools has the server under the name of a tool; by its own name it knows what to be.
SERVERS = ("redis-server", "valkey-server", "/usr/bin/redis-check-rdb", "/usr/bin/valkey-check-rdb")
NODES = 6
# Milliseconds without an answer after which the others take a server for gone.
NODE_TIMEOUT = 1500


class ClusterFailed(RuntimeError):
    """The servers did not do what they must for the test to mean anything."""


class Cluster:
    """As a context manager: serves on entering; all servers are killed and their directory is removed on leaving."""

    def __init__(self, server: str | None = None, maxmemory: str = "1gb") -> None:
        found = server or next((path for name in SERVERS if (path := shutil.which(name))), None)
        if not found:
            raise ClusterFailed("no server of Redis or Valkey is installed: deploy/setup installs Debian's redis-tools")
        self.directory = Path(tempfile.mkdtemp(prefix="kvtc-fleet-"))
        self.directory.chmod(0o755)
        self._program = self.directory / "redis-server"
        self._program.symlink_to(found)
        self._maxmemory = maxmemory
        self.password = secrets.token_hex(16)
        self.password_file = self.directory / "password"
        self.password_file.write_text(self.password + "\n")
        self.password_file.chmod(0o600)
        self.authority = self.directory / "ca.crt"
        self._certify()
        self.ports = _free_ports(NODES)
        self._bus_ports = _free_ports(NODES)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * NODES
        self._frozen: set[int] = set()

    def __enter__(self) -> Cluster:
        try:
            for node in range(NODES):
                self.start(node)
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in range(NODES):
            self.kill(node)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def version(self) -> str:
        """As the program says it."""
        words = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True).stdout.split()
        return " ".join(words[:3])

    @property
    def url(self) -> str:
        """By a master and a replica of another."""
        return f"rediss+cluster://{HOST}:{self.ports[0]},{HOST}:{self.ports[4]}"

    def start(self, node: int) -> None:
        """Starts a server that does not run; it finds its place by what it remembers."""
        directory = self.directory / str(node)
        directory.mkdir(exist_ok=True)
        options = {
            "bind": HOST, "port": 0, "tls-port": self.ports[node], "cluster-port": self._bus_ports[node], "dir": directory,
            "tls-cert-file": self.directory / "server.crt", "tls-key-file": self.directory / "server.key",
            "tls-ca-cert-file": self.authority, "tls-auth-clients": "no", "tls-cluster": "yes", "tls-replication": "yes",
            "cluster-enabled": "yes", "cluster-node-timeout": NODE_TIMEOUT, "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no", "repl-diskless-sync-delay": 0, "repl-ping-replica-period": 1,
            "requirepass": self.password, "masterauth": self.password, "maxmemory": self._maxmemory,
            "maxmemory-policy": "allkeys-lru", "save": "", "appendonly": "no", "logfile": directory / "log",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._processes[node] = subprocess.Popen(
            [self._program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait("a server serves", lambda: self._answers(node))

    def kill(self, node: int) -> None:
        """Ends a server as a power cut does."""
        process = self._processes[node]
        if process:
            process.kill()
            process.wait()
        self._processes[node] = None
        self._frozen.discard(node)

    def freeze(self, node: int) -> None:
        """Has a server take packets and answer none, as one behind a network that swallows them."""
        self._signal(node, signal.SIGSTOP)
        self._frozen.add(node)

    def thaw(self, node: int) -> None:
        """Has it go on."""
        self._signal(node, signal.SIGCONT)
        self._frozen.discard(node)

    def _signal(self, node: int, number: signal.Signals) -> None:
        process = self._processes[node]
        if not process:
            raise ClusterFailed(f"server {node} does not run")
        os.kill(process.pid, number)

    @property
    def frozen(self) -> list[int]:
        """Those that are silent."""
        return sorted(self._frozen)

    @property
    def running(self) -> list[int]:
        """Those that could answer."""
        return [node for node, process in enumerate(self._processes) if process and node not in self._frozen]

    def connect(self, node: int) -> RedisConnection:
        """A connection to one server, for what is done to it."""
        return RedisConnection(HOST, self.ports[node], self.authority, self.password)

    def masters(self) -> list[int]:
        """Those that have slots, as the first server that says so sees it."""
        for node in self.running:
            with contextlib.suppress(OSError), self.connect(node) as connection:
                ports = {int(entry[2][1]) for entry in connection.command("CLUSTER", "SLOTS")}
                return [node for node, port in enumerate(self.ports) if port in ports]
        raise ClusterFailed("no server says who has the slots")

    def await_whole(self, seconds: float = 60) -> None:
        """Waits until all slots are served, as all that run see it."""
        wait("the cluster serves all slots", lambda: all(map(self._is_whole, self.running)), seconds)

    def await_copies(self, seconds: float = 60) -> None:
        """Waits until each master has a replica that has all it has, so that it can be done without."""
        wait("every master has a replica", self._has_copies, seconds)

    def _has_copies(self) -> bool:
        return all(self._info(node, "INFO", "replication", b"state=online") for node in self.masters())

    def every_key(self) -> Iterator[tuple[int, bytes]]:
        """Every key with the master that has it."""
        for node in self.masters():
            with self.connect(node) as connection:
                cursor = b"0"
                while True:
                    cursor, found = connection.command("SCAN", cursor, "COUNT", "1000")
                    yield from ((node, key) for key in found)
                    if cursor == b"0":
                        break

    def _answers(self, node: int) -> bool:
        process = self._processes[node]
        if process and process.poll() is not None:
            log = self.directory / str(node) / "log"
            raise ClusterFailed(f"server {node} ended: {log.read_text(errors='replace')[-2000:] if log.exists() else 'no log'}")
        try:
            with self.connect(node) as connection:
                return bool(connection.command("PING") == b"PONG")
        except OSError:
            return False

    def _is_whole(self, node: int) -> bool:
        return self._info(node, "CLUSTER", "INFO", b"cluster_state:ok")

    def _join(self) -> None:
        """Three share the slots; each of the others copies one of them."""
        identifiers = []
        bounds = [0, 5461, 10923, 16384]
        for node in range(NODES):
            with self.connect(node) as connection:
                identifiers.append(connection.command("CLUSTER", "MYID"))
                connection.command("CLUSTER", "SET-CONFIG-EPOCH", node + 1)
                if node < 3:
                    connection.command("CLUSTER", "ADDSLOTSRANGE", bounds[node], bounds[node + 1] - 1)
        with self.connect(0) as connection:
            for port, bus in list(zip(self.ports, self._bus_ports, strict=True))[1:]:
                connection.command("CLUSTER", "MEET", HOST, port, bus)
        self.await_whole()
        for node in range(NODES):
            wait("all servers know each other", lambda node=node: self._info(node, "CLUSTER", "INFO", b"cluster_known_nodes:6"))
        for node in range(3, NODES):
            with self.connect(node) as connection:
                connection.command("CLUSTER", "REPLICATE", identifiers[node - 3])
            wait("a replica has copied", lambda node=node: self._info(node, "INFO", "replication", b"master_link_status:up"))

    def _info(self, node: int, *words: str | bytes) -> bool:
        """Whether a server answers, to all words but the last, what contains the last."""
        try:
            with self.connect(node) as connection:
                return words[-1] in connection.command(*words[:-1])
        except OSError:
            return False

    def _certify(self) -> None:
        """An authority, and a certificate of this host."""
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        self._openssl("req", "-x509", *new_key, "-subj", "/CN=fleet", "-keyout", "ca.key", "-out", "ca.crt")
        self._openssl(
            "req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key", *new_key, "-subj", "/CN=server", "-addext",
            f"subjectAltName=IP:{HOST}", "-keyout", "server.key", "-out", "server.crt",
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


def wait(what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until a condition holds; servers tell nobody, so it is asked for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterFailed(f"still waiting after {seconds:.0f} s until {what}")
        time.sleep(0.05)


def _free_ports(count: int) -> Sequence[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
