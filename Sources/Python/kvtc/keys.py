"""Names of pages: a hash over the profile and all token ids up to the page's end, so equal prefixes share pages."""

from __future__ import annotations

import hashlib
import struct
from typing import Sequence

import numpy as np

DOMAIN = b"kvtc-page-v1"
PART_DOMAIN = b"kvtc-part-v1"
NO_PROFILE = bytes(32)


def page_keys(
    token_ids: Sequence[int] | np.ndarray,
    page_tokens: int = 64,
    profile_id: bytes = b"",
    parent: bytes | None = None,
    partial: bool = False,
    part: str = "",
) -> list[bytes]:
    """The keys of the pages of a token sequence, in order.

    ``parent`` is the key of the page before the first token (None at the sequence's start). Tokens after the last full
    page get no key unless ``partial``. A key says nothing about the engine: put what changes K and V besides the
    tokens (adapter, quantisation, rope scaling) into different profiles or tenants. Ranks of a parallel model, and layers
    that keep other tokens than the rest, each name theirs by ``part`` ("tp1/4", "pp0/2", "sliding"): without a profile of
    their own, nothing else would tell their pages apart.
    """
    if page_tokens <= 0:
        raise ValueError(f"page_tokens must be positive, not {page_tokens}")
    profile = profile_id or NO_PROFILE
    previous = NO_PROFILE if parent is None else parent
    if len(profile) != 32 or len(previous) != 32:
        raise ValueError("profile_id and parent have 32 bytes each")
    if part and parent is None:
        previous = part_key(previous, part, profile_id)
    ids = np.asarray(token_ids, dtype="<i4")
    end = len(ids) if partial else len(ids) - len(ids) % page_tokens
    keys = []
    for start in range(0, end, page_tokens):
        page = ids[start : min(start + page_tokens, end)]
        digest = hashlib.sha256(DOMAIN + profile + previous + struct.pack("<I", len(page)))
        digest.update(page.tobytes())
        previous = digest.digest()
        keys.append(previous)
    return keys


def part_key(key: bytes, part: str, profile_id: bytes = b"") -> bytes:
    """The name of one part's page, made from a key that an engine gave to all of them.

    Tensor-parallel ranks of an engine share its block hashes although each holds other heads.
    """
    profile = profile_id or NO_PROFILE
    if len(profile) != 32:
        raise ValueError("profile_id has 32 bytes")
    return hashlib.sha256(PART_DOMAIN + profile + struct.pack("<I", len(key)) + key + part.encode()).digest()


def page_runs(positions: Sequence[int] | np.ndarray, page_tokens: int = 64) -> list[tuple[int, int]]:
    """Cuts the tokens of a cache into pages: (index of the first token, tokens) of each.

    The positions of a page go on without a gap. Where tokens are gone, as in layers with a sliding window, a page ends
    before the gap and the next begins behind it.
    """
    if page_tokens <= 0:
        raise ValueError(f"page_tokens must be positive, not {page_tokens}")
    values = np.asarray(positions, dtype=np.int64)
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 2) != 1)
    runs = zip(starts, [*starts[1:], len(values)])
    return [(int(at), int(min(page_tokens, end - at))) for start, end in runs for at in range(start, end, page_tokens)]
