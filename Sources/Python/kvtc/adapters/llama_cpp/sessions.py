"""The sessions of a llama.cpp worker: what its cache's pages are."""

from __future__ import annotations

from dataclasses import replace

from ...client import Client
from ...protocol.errors import KvtcError
from ...protocol.geometry import NO_ROPE, Geometry, Role, RotaryStyle, Tensor
from ...protocol.policy import Policy
from ...session import Session
from .. import sessions
from .geometry import ModelGeometry
from .worker import LlamaWorker


def wire_geometry(model: ModelGeometry) -> Geometry:
    """The geometry that a session of this model declares. RoPE is part of it where the model file tells its frequencies:
    measured ones differ in their last digits from worker to worker."""
    rope = model.rope
    if rope.base is None:
        rope = replace(rope, style="none", dims=0, offset=0)
    tables = [list(table) for table in dict.fromkeys(rope.frequencies)] if rope.dims else []
    style = RotaryStyle[rope.style.upper()]
    keys, tensors = Role.LATENT if model.is_latent else Role.KEY, []
    for layer in range(model.layers):
        table = tables.index(list(rope.frequencies[layer])) if tables else NO_ROPE
        tensors.append(Tensor(layer, keys, style, model.heads, model.head_dim, rope.offset, rope.dims, table))
        if not model.is_latent:
            tensors.append(Tensor(layer, Role.VALUE, RotaryStyle.NONE, model.heads, model.value_dim))
    return Geometry(tensors, tables)


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
