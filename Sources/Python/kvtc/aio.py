"""The client for programs that run on asyncio: the same calls, awaited. Each runs in a thread of the client's own, never in the loop's.

    async with await kvtc.aio.connect() as client:
        async with await client.open_session("chat", geometry=geometry, identity=model) as session:
            await session.push(pages)
            async for part in session.pull(keys):
                …

Calls of one client go on beside each other, as those of threads do. A call whose task is cancelled is carried out all the same; its
outcome is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ParamSpec, Self, TypeVar

from . import client as blocking
from .blocks import Block, BlockLookup
from .identity import Identity
from .leases import Lease, Lookup
from .protocol.geometry import Geometry, Layout
from .protocol.messages import FlushReply, GetPolicyReply, PushOutcome, TruncateReply
from .protocol.policy import Policy, Range
from .pull import Part
from .push import Page
from .session import Session
from .transport.deadline import within

P = ParamSpec("P")
T = TypeVar("T")
_END = object()
_THREADS = 16


class _Runner:
    """Threads for calls that wait. A deadline is each call's own: that of a task would not reach them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kvtc-aio")

    async def run(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments, **options))

    def close(self) -> None:
        self._threads.shutdown(wait=False)


class AsyncClient:
    """``client`` is the one that blocks, for what is not here."""

    def __init__(self, client: blocking.Client, runner: _Runner) -> None:
        self.client, self._runner = client, runner

    async def open_session(
        self,
        name: str,
        *,
        geometry: Geometry | None = None,
        layout: Layout | None = None,
        profile: bytes | str = b"",
        policy: Policy | None = None,
        page_tokens: int = 64,
        identity: Identity | bytes = b"",
    ) -> AsyncSession:
        """See ``Client.open_session``."""
        session = await self._runner.run(
            self.client.open_session,
            name,
            geometry=geometry,
            layout=layout,
            profile=profile,
            policy=policy,
            page_tokens=page_tokens,
            identity=identity,
        )
        return AsyncSession(session, self._runner)

    async def status(self) -> dict[str, Any]:
        return await self._runner.run(self.client.status)

    async def profiles(self) -> Any:
        return await self._runner.run(self.client.profiles)

    async def flush(self) -> FlushReply:
        return await self._runner.run(self.client.flush)

    async def drop(self, keys: Sequence[bytes] | None = None) -> int:
        return await self._runner.run(self.client.drop, keys)

    async def explain(self, keys: Sequence[bytes]) -> Any:
        return await self._runner.run(self.client.explain, keys)

    async def close(self) -> None:
        await self._runner.run(self.client.close)
        self._runner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncSession:
    """``session`` is the one that blocks. What calls mean and give: see ``Session``."""

    def __init__(self, session: Session, runner: _Runner) -> None:
        self.session, self._runner = session, runner

    async def push(self, pages: Iterable[Page]) -> list[PushOutcome]:
        return await self._runner.run(self.session.push, pages)

    async def lookup(self, keys: Sequence[bytes], lease_ms: int = 0) -> Lookup:
        return await self._runner.run(self.session.lookup, keys, lease_ms)

    @asynccontextmanager
    async def leased(self, keys: Sequence[bytes], lease_ms: int) -> AsyncIterator[Lookup]:
        """A lookup whose lease is given back at the end of the block."""
        found = await self.lookup(keys, lease_ms)
        try:
            yield found
        finally:
            if found.lease:
                await self._runner.run(found.lease.release)

    def pull(
        self,
        keys: Sequence[bytes],
        layers: range | None = None,
        layer_step: int | None = None,
        lease: Lease | int | None = None,
    ) -> AsyncIterator[Part]:
        """Each part is valid until the next one is asked for."""
        return self._parts(self.session.pull(keys, layers, layer_step, lease))

    async def _parts(self, parts: Iterator[Part]) -> AsyncIterator[Part]:
        try:
            while (part := await self._runner.run(next, parts, _END)) is not _END:
                assert isinstance(part, Part)
                yield part
        finally:
            # Left early, what is under way is given back in the thread, not whenever it is found.
            close: Callable[[], None] | None = getattr(parts, "close", None)
            if close:
                await self._runner.run(close)

    async def fetch(self, keys: Sequence[bytes], lease: Lease | int | None = None) -> list[bytes | None]:
        return await self._runner.run(self.session.fetch, keys, lease)

    async def lookup_blocks(self, keys: Sequence[bytes], lease_ms: int = 0) -> BlockLookup:
        return await self._runner.run(self.session.lookup_blocks, keys, lease_ms)

    def pull_blocks(
        self, keys: Sequence[bytes], lease: Lease | int | None = None, lengths: Sequence[int] | None = None
    ) -> AsyncIterator[Part]:
        """Each part is valid until the next one is asked for."""
        return self._parts(self.session.pull_blocks(keys, lease, lengths))

    async def push_blocks(self, blocks: Iterable[Block]) -> list[PushOutcome]:
        return await self._runner.run(self.session.push_blocks, blocks)

    async def profile_file(self) -> memoryview:
        return await self._runner.run(self.session.profile_file)

    async def prefetch(self, keys: Sequence[bytes]) -> int:
        return await self._runner.run(self.session.prefetch, keys)

    async def touch(self, keys: Sequence[bytes], pin: bool | None = None, ttl_seconds: int | None = None) -> int:
        return await self._runner.run(self.session.touch, keys, pin, ttl_seconds)

    async def drop(self, keys: Sequence[bytes] | None = None) -> int:
        return await self._runner.run(self.session.drop, keys)

    async def explain(self, first: int = 0) -> Any:
        return await self._runner.run(self.session.explain, first)

    async def truncate(self, tokens: int) -> TruncateReply:
        return await self._runner.run(self.session.truncate, tokens)

    async def policy(self) -> GetPolicyReply:
        return await self._runner.run(self.session.policy)

    async def set_policy(self, policy: Policy) -> list[Range]:
        return await self._runner.run(self.session.set_policy, policy)

    async def flush(self) -> FlushReply:
        return await self._runner.run(self.session.flush)

    async def close(self) -> None:
        await self._runner.run(self.session.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def connect(socket_path: str | None = None, *, deadline: float = 60.0, **options: Any) -> AsyncClient:
    """Connects within ``deadline`` seconds; see ``Client`` for the options, of which ``timeout`` bounds every call."""
    runner = _Runner()

    def make() -> blocking.Client:
        with within(deadline):
            return blocking.Client(socket_path, **options)

    try:
        return AsyncClient(await runner.run(make), runner)
    except BaseException:
        runner.close()
        raise
