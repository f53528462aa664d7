"""A connection to kvtcd that is made when kvtcd is there: engines start without it and go on when it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ..client import Client
from ..transport.deadline import Breaker
from .options import Options

T = TypeVar("T")


class LateClient:
    """One client, for as many caches as an engine has. Thread-safe."""

    def __init__(self, options: Options, name: str) -> None:
        self._options, self._name = options, name
        self._lock = threading.Lock()
        self._breaker = Breaker()
        self._client: Client | None = None

    def use(self, action: Callable[[Client], T]) -> T:
        """What the action gives, connecting before where need be; both within the deadline. Raises KvtcError; ``Unavailable``, at
        once, while kvtcd is known to be away."""
        with self._lock:
            with self._breaker.guard(self._options.deadline, lambda: None):
                if self._client is None:
                    self._client = Client(self._options.socket, name=self._name, arena_bytes=self._options.arena_mib << 20)
                return action(self._client)

    def close(self) -> None:
        """Hangs up."""
        with self._lock:
            client, self._client = self._client, None
        if client:
            client.close()
