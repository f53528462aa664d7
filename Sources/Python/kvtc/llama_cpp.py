"""A llama.cpp sequence's cache, kept by kvtcd.

    with LlamaWorker() as worker, kvtc.connect() as client:
        session = llama_cpp.open_session(client, worker, "chat", profile=profile, policy=kvtc.Policy(mode="transform", quality=16))
        tokens = worker.tokenize(text)
        logits = llama_cpp.resume(session, worker, tokens)   # restores what kvtcd has, computes the rest
        llama_cpp.offload(session, worker, tokens)           # hands the pages over for the next time

A page is `session.page_tokens` tokens; its key is a hash of all tokens up to its end, so equal beginnings share pages.
The tokens after the last full page are few and computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .client import Client
from .errors import KvtcError
from .geometry import NO_ROPE, Geometry, Layout, Role, RotaryStyle, Tensor
from .keys import page_keys
from .llama_geometry import ModelGeometry
from .llama_model import LlamaWorker
from .llama_state import SequenceState, blank_state
from .messages import PullOutcome, PushOutcome
from .policy import Policy
from .session import Page, Session


@dataclass(frozen=True)
class Offload:
    """What became of a sequence's pages. `refused` pages are not kept: the daemon is full or they exceed a limit."""

    pages: int
    stored: int
    present: int
    refused: int
    raw_bytes: int


def wire_geometry(model: ModelGeometry) -> Geometry:
    """The geometry that a session of this model declares."""
    rope = model.rope
    tables = [list(table) for table in dict.fromkeys(rope.frequencies)] if rope.dims else []
    style = RotaryStyle[rope.style.upper()]
    keys, tensors = Role.LATENT if model.is_latent else Role.KEY, []
    for layer in range(model.layers):
        table = tables.index(list(rope.frequencies[layer])) if tables else NO_ROPE
        tensors.append(Tensor(layer, keys, style, model.heads, model.head_dim, rope.offset, rope.dims, table))
        if not model.is_latent:
            tensors.append(Tensor(layer, Role.VALUE, RotaryStyle.NONE, model.heads, model.value_dim))
    return Geometry(tensors, tables)


def open_session(
    client: Client,
    worker: LlamaWorker,
    name: str,
    *,
    profile: bytes | str = b"",
    policy: Policy | None = None,
    page_tokens: int = 64,
) -> Session:
    """A session whose pages are what llama.cpp's state holds: f16, K of all layers, then V, token by token."""
    # Frequencies that were measured differ in their last digits from those of the profile, which decides then.
    is_exact = worker.geometry.rope.base is not None or not profile
    session = client.open_session(
        name,
        geometry=wire_geometry(worker.geometry) if is_exact else Geometry(),
        layout=Layout(),
        profile=profile,
        policy=policy,
        page_tokens=page_tokens,
    )
    if session.token_bytes != worker.geometry.token_bytes:
        session.close()
        raise KvtcError(f"a token has {worker.geometry.token_bytes} bytes here and {session.token_bytes} for the daemon")
    return session


def offload(session: Session, worker: LlamaWorker, tokens: Sequence[int], first_page: int = 0) -> Offload:
    """Pushes the full pages of the worker's sequence, which must begin with `tokens`, from `first_page` on."""
    state = worker.get_state()
    if state.cells < len(tokens) or state.positions[0] != 0 or state.positions[-1] != state.cells - 1:
        raise ValueError(f"the cache holds {state.cells} tokens from position {state.positions[0]}, not these {len(tokens)}")
    size = session.page_tokens
    keys = page_keys(tokens, size, session.profile)
    chosen = range(first_page, len(keys))
    outcomes = session.push(Page(keys[i], i * size, state.page(i * size, size), size) for i in chosen)
    stored = sum(outcome in (PushOutcome.STORED, PushOutcome.NON_FINITE) for outcome in outcomes)
    present = outcomes.count(PushOutcome.PRESENT)
    raw_bytes = len(chosen) * size * state.token_bytes()
    return Offload(len(chosen), stored, present, len(chosen) - stored - present, raw_bytes)


def restore(session: Session, worker: LlamaWorker, tokens: Sequence[int], *, lease_ms: int = 60_000) -> int:
    """Replaces the worker's cache with the longest beginning of `tokens` that kvtcd has; returns its length.

    A page that turns out missing or damaged ends the beginning there. With 0 the worker's cache is empty.
    """
    worker.clear()
    state, there = fetch_state(session, worker, tokens, lease_ms=lease_ms)
    if state is not None and there:
        worker.set_state(state)
        worker.truncate(there)
    return there


def fetch_state(
    session: Session, worker: LlamaWorker, tokens: Sequence[int], *, lease_ms: int = 60_000
) -> tuple[SequenceState | None, int]:
    """The state of the longest beginning of `tokens` that kvtcd has, and how many of its tokens are there.

    Cells after those hold nothing of use: the pages that were found, but could not be brought.
    """
    size = session.page_tokens
    keys = page_keys(tokens, size, session.profile)
    if not keys:
        return None, 0
    found = session.lookup(keys, lease_ms)
    try:
        pages = found.leading_run
        if pages == 0:
            return None, 0
        state = blank_state(range(pages * size), worker.state_form)
        missing = pages
        for part in session.pull(keys[:pages], lease=found.lease):
            if part.outcome == PullOutcome.HIT and len(part.data) == session.page_bytes:
                state.replace(part.index * size, size, np.frombuffer(part.data, np.uint8))
            else:
                missing = min(missing, part.index)
    finally:
        if found.lease:
            found.lease.release()
    return state, missing * size


def resume(session: Session, worker: LlamaWorker, tokens: Sequence[int]) -> np.ndarray:
    """Brings the worker to the end of `tokens` by restoring and computing the rest; the logits after the last token."""
    restored = restore(session, worker, tokens)
    if restored >= len(tokens):
        # Logits are not part of the cache: the last token is computed again.
        restored = len(tokens) - 1
        worker.truncate(restored)
    return worker.prefill(tokens[restored:])
