"""Several sessions that hold parts of the same tokens: the ranks of a parallel model, groups of layers.

Each part is evicted, damaged or dropped by itself, so one rank may find five pages where another finds three. Ranks that go on
from different lengths wait for each other for ever, or compute nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .leases import Lease, Lookup
from .session import Session


@dataclass
class JointLookup:
    """``leading_run`` pages from the first on can be pulled in every session. ``lookups`` are what each one said, in their
    order. A context manager: at its end, and by ``release``, all leases are given back."""

    leading_run: int
    lookups: list[Lookup]
    _leases: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def leases(self) -> list[Lease | None]:
        """Of each session; all None where nothing was asked for, or where there is nothing to pull."""
        return [lookup.lease for lookup in self.lookups]

    def release(self) -> None:
        """Gives back every lease, also when one of them fails; the last failure is raised."""
        self._leases.close()

    def __enter__(self) -> JointLookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lookup_all(sessions: Sequence[Session], keys: Sequence[Sequence[bytes]], lease_ms: int = 0) -> JointLookup:
    """Looks several sessions up and takes the least leading run of them.

    ``keys`` has a list for each session; the same place in each names the same tokens. With ``lease_ms`` the pages stay
    fetchable that long in all of them. When one lookup fails, or nothing is there for all, no lease is left behind.

    A page may still turn out damaged when it is pulled: then take the least again, of what each rank got.
    """
    if len(sessions) != len(keys):
        raise ValueError(f"{len(sessions)} sessions, but keys for {len(keys)}")
    if not sessions:
        raise ValueError("no session to look up")
    if len({len(of_one) for of_one in keys}) != 1:
        raise ValueError(f"the sessions have different numbers of keys: {', '.join(str(len(of_one)) for of_one in keys)}")
    with ExitStack() as leases:
        lookups = []
        for session, of_one in zip(sessions, keys, strict=True):
            lookups.append(session.lookup(of_one, lease_ms))
            if lookups[-1].lease:
                leases.enter_context(lookups[-1].lease)
        run = min(lookup.leading_run for lookup in lookups)
        # Leases of what some have and others have not would only keep room from others.
        if run == 0:
            leases.close()
            for lookup in lookups:
                lookup.lease = None
        return JointLookup(run, lookups, leases.pop_all())
