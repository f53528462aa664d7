"""Names of pages: a hash over the profile and all token ids up to the page's end, so equal prefixes share pages."""

from __future__ import annotations

import hashlib
import struct
from typing import Sequence

import numpy as np

DOMAIN = b"kvtc-page-v1"
NO_PROFILE = bytes(32)


def page_keys(
    token_ids: Sequence[int] | np.ndarray,
    page_tokens: int = 64,
    profile_id: bytes = b"",
    parent: bytes | None = None,
    partial: bool = False,
) -> list[bytes]:
    """The keys of the pages of a token sequence, in order.

    ``parent`` is the key of the page before the first token (None at the sequence's start). Tokens after the last full
    page get no key unless ``partial``. A key says nothing about the engine: put what changes K and V besides the
    tokens (adapter, quantisation, rope scaling) into different profiles or tenants.
    """
    if page_tokens <= 0:
        raise ValueError(f"page_tokens must be positive, not {page_tokens}")
    profile = profile_id or NO_PROFILE
    previous = NO_PROFILE if parent is None else parent
    if len(profile) != 32 or len(previous) != 32:
        raise ValueError("profile_id and parent have 32 bytes each")
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
