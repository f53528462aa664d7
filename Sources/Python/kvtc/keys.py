"""Names of pages: a hash over the profile and all token ids up to the page's end, so equal prefixes share pages."""

from __future__ import annotations

import hashlib
import operator
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DOMAIN = b"kvtc-page-v1"
INPUTS_DOMAIN = b"kvtc-page-inputs-v1"
PART_DOMAIN = b"kvtc-part-v1"
SALT_DOMAIN = b"kvtc-salt-v1"
NO_PROFILE = bytes(32)


class Span(NamedTuple):
    """What stands in the place of the tokens [begin, end): an image, audio, any embedding. ``digest``: 16 to 64 bytes that
    name its content after everything that was done to it (cropping, scaling, position)."""

    begin: int
    end: int
    digest: bytes


def page_keys(
    token_ids: Sequence[int] | np.ndarray,
    page_tokens: int = 64,
    profile_id: bytes = b"",
    parent: bytes | None = None,
    partial: bool = False,
    part: str = "",
    salt: bytes | str = b"",
    inputs: Sequence[Span | tuple[int, int, bytes]] = (),
) -> list[bytes]:
    """The keys of the pages of a token sequence, in order.

    ``token_ids``: one row of integers of 32 bits. ``parent`` is the key of the page before the first token (None at the
    sequence's start). Tokens after the last full page get no key unless ``partial``.

    ``inputs`` are what K and V depend on besides the ids, by index into ``token_ids``: engines put one and the same
    placeholder for every image. Each goes into the key of every page that it touches, and so of all later ones. One that
    began before ``parent`` ended has a negative ``begin``. Negative ids are placeholders and need an input.

    Ranks of a parallel model, and layers that keep other tokens than the rest, each name theirs by ``part`` ("tp1/4",
    "pp0/2", "sliding"); ``salt`` keeps apart what must not share pages, such as the users of one engine. Both begin a chain:
    together with ``parent``, whose chain has them already, they are refused. Model, adapters and the type of the cache are
    not in a key: see ``Identity``.

    Raises TypeError and ValueError for what would otherwise be cut to fit or ignored.
    """
    page_tokens = _positive("page_tokens", page_tokens)
    profile = _profile(profile_id)
    previous = _start(profile, parent, part, salt)
    ids = _integers("token_ids", token_ids)
    low, high = (ids.min(), ids.max()) if len(ids) else (0, 0)
    if low < -(2**31) or high >= 2**31:
        wide = low if low < -(2**31) else high
        raise ValueError(f"token_ids holds {wide}, which has more than 32 bits: name what is no token by `inputs`")
    spans = _spans(inputs, parent is not None)
    _check_placeholders(ids, spans)
    ids = ids.astype("<i4")
    end = len(ids) if partial else len(ids) - len(ids) % page_tokens
    touching: dict[int, list[Span]] = {}
    for span in spans:
        for number in range(max(span.begin, 0) // page_tokens, (min(span.end, end) - 1) // page_tokens + 1):
            touching.setdefault(number * page_tokens, []).append(span)
    keys = []
    for start in range(0, end, page_tokens):
        page = ids[start : min(start + page_tokens, end)]
        head = profile + previous + struct.pack("<I", len(page))
        head = INPUTS_DOMAIN + head + _encoded(touching[start], start) if start in touching else DOMAIN + head
        previous = hashlib.sha256(head + page.tobytes()).digest()
        keys.append(previous)
    return keys


def part_key(key: bytes, part: str, profile_id: bytes = b"") -> bytes:
    """The name of one part's page, made from a key that an engine gave to all of them.

    Tensor-parallel ranks of an engine share its block hashes although each holds other heads. The engine's keys must mean
    the same in every process, and be as hard to find twice as a digest is: vLLM's need `--prefix-caching-hash-algo sha256`
    and a fixed PYTHONHASHSEED, without which its first hash is random.
    """
    if not isinstance(key, bytes):
        raise TypeError(f"key must be bytes, not {type(key).__name__}")
    if not key:
        raise ValueError("key is empty: it names no page")
    name = _utf8("part", part)
    return hashlib.sha256(PART_DOMAIN + _profile(profile_id) + struct.pack("<I", len(key)) + key + name).digest()


def page_runs(positions: Sequence[int] | np.ndarray, page_tokens: int = 64) -> list[tuple[int, int]]:
    """Cuts the tokens of a cache into pages: (index of the first token, tokens) of each.

    The positions of a page go on without a gap. Where tokens are gone, as in layers with a sliding window, a page ends
    before the gap and the next begins behind it.
    """
    page_tokens = _positive("page_tokens", page_tokens)
    values = _integers("positions", positions)
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 2) != 1)
    runs = zip(starts, [*starts[1:], len(values)], strict=False)
    return [(int(at), int(min(page_tokens, end - at))) for start, end in runs for at in range(start, end, page_tokens)]


def _start(profile: bytes, parent: bytes | None, part: str, salt: bytes | str) -> bytes:
    """What stands for the page before the first one."""
    name = _utf8("part", part)
    if not isinstance(salt, (bytes, str)):
        raise TypeError(f"salt must be bytes or str, not {type(salt).__name__}")
    secret = _utf8("salt", salt) if isinstance(salt, str) else salt
    if parent is not None:
        for given, argument in ((name, "part"), (secret, "salt")):
            if given:
                raise ValueError(f"{argument} together with parent: a chain has its {argument} from its first page on")
        if not isinstance(parent, bytes):
            raise TypeError(f"parent must be bytes, not {type(parent).__name__}")
        if len(parent) != 32:
            raise ValueError(f"parent has 32 bytes, not {len(parent)}; part_key makes such a key of an engine's")
        return parent
    start = part_key(NO_PROFILE, part, profile) if name else NO_PROFILE
    return hashlib.sha256(SALT_DOMAIN + start + secret).digest() if secret else start


def _profile(profile_id: bytes) -> bytes:
    if not isinstance(profile_id, bytes):
        raise TypeError(f"profile_id must be bytes, not {type(profile_id).__name__}")
    if len(profile_id) not in (0, 32):
        raise ValueError(f"profile_id has 32 bytes, or none without a profile, not {len(profile_id)}")
    return profile_id or NO_PROFILE


def _positive(name: str, value: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if operator.index(value) <= 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return operator.index(value)


def _utf8(name: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode: {text!r}") from None


def _integers(name: str, values: Sequence[int] | np.ndarray) -> np.ndarray:
    """One row of integers as such: numpy would cut, round and flatten to fit."""
    if isinstance(values, np.ndarray) and hasattr(values, "mask"):
        raise TypeError(f"{name} is a masked array: fill it or leave the masked out")
    # numpy takes True for 1 where it stands among integers.
    if isinstance(values, (list, tuple)) and not {bool, np.bool_}.isdisjoint(map(type, values)):
        raise TypeError(f"{name} holds truth values")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O" and array.ndim == 1 and set(map(type, array)) == {int}:
            array = array.astype(np.int64)
    except OverflowError:
        raise ValueError(f"{name} holds numbers of more than 64 bits") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if array.ndim != 1:
        raise ValueError(f"{name} must be one row of integers; this has {array.ndim} dimensions")
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, not {array.dtype}")
    if array.max() >= 2**63:
        raise ValueError(f"{name} holds {array.max()}, which has more than 64 bits with its sign")
    return array.astype(np.int64)


def _spans(inputs: Sequence[Span | tuple[int, int, bytes]], has_parent: bool) -> list[Span]:
    spans = []
    for index, item in enumerate(inputs):
        name = f"inputs[{index}]"
        if not isinstance(item, (tuple, list)) or len(item) != 3:
            raise TypeError(f"{name} must be begin, end and digest")
        begin, end, digest = item
        for value in (begin, end):
            if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
                raise TypeError(f"{name} must begin and end at integers, not {type(value).__name__}")
        if not isinstance(digest, bytes):
            raise TypeError(f"the digest of {name} must be bytes, not {type(digest).__name__}")
        if not 16 <= len(digest) <= 64:
            raise ValueError(f"the digest of {name} has {len(digest)} bytes, not 16 to 64")
        span = Span(operator.index(begin), operator.index(end), digest)
        if span.begin >= span.end:
            raise ValueError(f"{name} ends at {span.end}, before it has begun at {span.begin}")
        if span.begin < 0 and not has_parent:
            raise ValueError(f"{name} begins at {span.begin}, before the sequence")
        if max(abs(span.begin), abs(span.end)) >= 2**62:
            raise ValueError(f"{name} lies beyond what a sequence can hold")
        spans.append(span)
    return sorted(spans)


def _check_placeholders(ids: np.ndarray, spans: Sequence[Span]) -> None:
    bare = ids < 0
    for span in spans:
        bare[max(span.begin, 0) : max(span.end, 0)] = False
    if bare.any():
        at = int(bare.argmax())
        raise ValueError(f"token_ids[{at}] is {ids[at]}, a placeholder: name what stands there by `inputs`")


def _encoded(spans: Sequence[Span], start: int) -> bytes:
    """Counted from the page's first token, so that a chain may be continued anywhere."""
    items = (struct.pack("<qqI", span.begin - start, span.end - start, len(span.digest)) + span.digest for span in spans)
    return struct.pack("<I", len(spans)) + b"".join(items)
