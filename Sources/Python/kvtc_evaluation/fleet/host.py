"""A machine of the fleet: a kvtcd with a socket and a disk of its own, whose workers are a user of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kvtc.client import Client

from ..daemon import Daemon, all_coded, until
from .cluster import Cluster

TENANT = "team"


def new_secret(cluster: Cluster, name: str = "secret") -> Path:
    """A file with a secret of a fleet."""
    path = cluster.directory / name
    path.write_text(secrets.token_hex(32) + "\n")
    path.chmod(0o600)
    return path


class Host(Daemon):
    """A kvtcd of the fleet. Without a cluster it is one that shares nothing."""

    def __init__(
        self, kvtcd: Path, kvtcctl: Path, cluster: Cluster | None, secret: Path | None, *, user: int, tenant: str = TENANT,
        profiles: Sequence[Path] = (), ram_mib: int = 64, disk_mib: int = 256, **shared: object,
    ) -> None:
        super().__init__(kvtcd, kvtcctl, profiles, ram_mib=ram_mib, disk_mib=disk_mib)
        self.user = user
        settings: dict[str, object] = {}
        if cluster:
            settings = {
                "url": cluster.url, "password_file": cluster.password_file, "secret_file": secret, "ca_file": cluster.authority,
                "write": "coded", "encryption": "aes-gcm",
                # A page that comes late is a miss, which on a busy machine says nothing of what is asked here.
                "lookup_ms": 500, "pull_ms": 10_000,
            } | shared
        text = self._config.read_text().replace("[socket]\n", '[socket]\nmode = "0666"\n')
        text += "".join(["\n[shared]\n", *(f"{key} = {_toml(value)}\n" for key, value in settings.items())]) if settings else ""
        text += f"\n[tenants]\n{tenant} = [{user}]\n"
        self._config.write_text(text)
        # Its worker is another user, who connects.
        self._directory.chmod(0o755)

    def connect(self, *, user: int | None = None, **options: Any) -> Client:
        """As this host's user, or another one. It does not connect again by itself: that might be as yet another."""
        with acting_as(self.user if user is None else user):
            return super().connect(**{"reconnect": 0.0} | options)

    def await_written(self, client: Client, pages: int = 1) -> None:
        """Waits until the servers have all that is coded, and so many pages at least. The client is an administrator's."""

        def is_done(status: dict[str, Any]) -> bool:
            shared = status["shared"]
            return bool(all_coded(status) and shared["waiting"] == 0 and shared["written_pages"] + shared["known"] >= pages)

        until(client, "writing pages for other machines", is_done)

    def fetched_bytes(self, client: Client) -> int:
        """Bytes of all that the servers sent here, whatever it was."""
        return sum(server["bytes_in"] for server in client.status()["shared"]["servers"])

    def damaged_pages(self, client: Client) -> int:
        """Values that did not verify."""
        faults = {fault["reason"]: fault["count"] for fault in client.status()["shared"]["faults"]}
        return int(faults["corrupt"] + faults["truncated"])

    def is_connected(self, client: Client) -> bool:
        """Whether all servers that it knows are asked."""
        servers = client.status()["shared"]["servers"]
        return bool(servers) and all(server["breaker"] == "closed" for server in servers)


@contextlib.contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Connects as this user within, where the process may; whose a connection is, is settled when it is made."""
    if os.geteuid() != 0 or user == 0:
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def users(count: int) -> list[int]:
    """Numbers of users that have no name here; without root, this one again and again."""
    if os.geteuid() != 0:
        return [os.geteuid()] * count
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    free = (number for number in range(20_000, 60_000) if number not in taken)
    return [next(free) for _ in range(count)]


def _toml(value: object) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'
