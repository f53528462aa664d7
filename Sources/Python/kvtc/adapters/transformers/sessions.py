"""The sessions of a transformers worker: what its cache's pages are."""

from __future__ import annotations

from ...client import Client
from ...protocol.geometry import Layout
from ...protocol.policy import Policy
from ...session import Session
from .. import sessions
from ..geometry import wire_geometry
from .worker import TransformersWorker


def profile_for(client: Client, worker: TransformersWorker) -> str:
    """The id of the daemon's profile that was calibrated on the files of this worker's weights; empty where there is none."""
    return sessions.profile_for(client, worker.weights)


def open_session(
    client: Client,
    worker: TransformersWorker,
    name: str,
    *,
    profile: bytes | str = b"",
    policy: Policy | None = None,
    page_tokens: int = 64,
) -> Session:
    """A session whose pages are K of all layers, then V, token by token, in the cache's own type. Raises KvtcError when the daemon
    refuses it or does not answer."""
    cache = sessions.CacheForm(
        worker.identity,
        wire_geometry(worker.geometry),
        worker.geometry.token_bytes,
        Layout(element=worker.element),
        is_exact=worker.geometry.rope.base is not None,
    )
    return sessions.open_session(client, name, cache, profile=profile, policy=policy, page_tokens=page_tokens)
