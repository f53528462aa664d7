"""Opening a session for an engine's cache: all that must agree before bytes mean the same is said, and checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..client import Client
from ..identity import Identity
from ..protocol.errors import KvtcError
from ..protocol.geometry import Geometry, Layout
from ..protocol.policy import Mode, Policy
from ..session import Session


@dataclass(frozen=True)
class CacheForm:
    """An engine's cache: what computed it, its tensors, how a page of them lies in memory, and the bytes of a token by the
    engine's own count.

    Not exact: frequencies of the geometry were measured, and differ in their last digits from those of a profile, which
    decides where there is one.
    """

    identity: Identity
    geometry: Geometry
    token_bytes: int
    layout: Layout = field(default_factory=Layout)
    is_exact: bool = True


def profile_for(client: Client, weights: bytes) -> str:
    """The id of the daemon's profile that was calibrated on the weights of that digest; empty where there is none.

    Other profiles of the same shape would work, but code worse than they promise.
    """
    return next((str(profile["id"]) for profile in client.profiles() if profile.get("weights") == weights.hex()), "")


def needed_profile(client: Client, mode: Mode, weights: bytes, advice: str) -> str:
    """The daemon's profile of these weights, for a mode that needs one. Raises KvtcError with the advice where there is none."""
    if found := profile_for(client, weights):
        return found
    raise KvtcError(f"there is no profile of these weights ({weights.hex()[:12]}…) for the mode {mode.name.lower()}", advice=advice)


def open_session(
    client: Client,
    name: str,
    cache: CacheForm,
    *,
    profile: bytes | str = b"",
    policy: Policy | None = None,
    page_tokens: int = 64,
) -> Session:
    """A session of pages of that form. Raises KvtcError when the daemon refuses it, does not answer, or counts other bytes."""
    session = client.open_session(
        name,
        geometry=cache.geometry if cache.is_exact or not profile else Geometry(),
        layout=cache.layout,
        profile=profile,
        policy=policy,
        page_tokens=page_tokens,
        identity=cache.identity,
    )
    if session.token_bytes != cache.token_bytes:
        session.close()
        raise KvtcError(f"a token has {cache.token_bytes} bytes here and {session.token_bytes} for the daemon")
    return session
