"""The sessions of a llama.cpp worker: what its cache's pages are."""

from __future__ import annotations

from ...client import Client
from ...protocol.errors import KvtcError
from ...protocol.policy import Policy
from ...session import Session
from .. import sessions
from ..geometry import wire_geometry
from .worker import LlamaWorker


def profile_for(client: Client, worker: LlamaWorker) -> str:
    """The id of the daemon's profile that was calibrated on this worker's weights; empty where there is none.

    The weights are those of the file's content; `kvtc.calibration.capture` writes their digest.
    """
    return sessions.profile_for(client, worker.weights)


def open_session(
    client: Client,
    worker: LlamaWorker,
    name: str,
    *,
    profile: bytes | str = b"",
    policy: Policy | None = None,
    page_tokens: int = 64,
) -> Session:
    """A session whose pages are what llama.cpp's state holds: f16, K of all layers, then V, token by token.

    Raises KvtcError when the daemon refuses it or does not answer, and for a cache of another element type (q8_0, q4_0), whose
    state cannot be read.
    """
    if worker.cache != "f16":
        raise KvtcError(
            f"the worker's cache holds {worker.cache}, and the state of such a cache cannot be read",
            field="cache",
            advice="offload from a worker with an f16 cache; kvtcd makes it smaller",
        )
    cache = sessions.CacheForm(
        worker.identity,
        wire_geometry(worker.geometry),
        worker.geometry.token_bytes,
        is_exact=worker.geometry.rope.base is not None,
    )
    return sessions.open_session(client, name, cache, profile=profile, policy=policy, page_tokens=page_tokens)
