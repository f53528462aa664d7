"""What nobody but the tenant gets, and what is damaged nobody: other users, other fleets, changed and shortened values."""

from __future__ import annotations

from pathlib import Path

from .cluster import Cluster
from .host import Host
from .pages import Pages


def found(host: Host, pages: Pages, user: int | None = None) -> tuple[int, int]:
    """Pages that a user of a host gets, and wrong ones among them."""
    with host.connect(user=user) as client, pages.open(client) as session:
        pulled = pages.pull(session, range(pages.count))
    return pulled.hits, pulled.wrong


def damage(cluster: Cluster, prefix: bytes, position: float, cut: bool = False) -> int:
    """Flips a bit of every value of a page, at that share of its length, or cuts it there; how many there were."""
    count = 0
    for node, key in list(cluster.every_key()):
        if not key.startswith(prefix + b":p:"):
            continue
        with cluster.connect(node) as connection:
            value = bytearray(connection.command("GET", key) or b"")
            place = min(int(position * len(value)), len(value) - 1)
            if cut:
                del value[place:]
            else:
                value[place] ^= 1 << place % 8
            connection.command("SET", key, bytes(value))
            count += 1
    return count


def learns_nothing(cluster: Cluster, pages: Pages, secret: Path) -> bool:
    """Whether what the servers have names neither the keys nor shows what the pages hold."""
    keys = [key for _, key in cluster.every_key()]
    known = [text for key in pages.keys for text in (key, key.hex().encode())]
    if not keys or any(text in key for key in keys for text in known):
        return False
    content = pages.content(0)
    node, key = next((node, key) for node, key in cluster.every_key() if b":p:" in key)
    with cluster.connect(node) as connection:
        value = connection.command("GET", key)
    return content[:64] not in value and secret.read_bytes().strip() not in value
