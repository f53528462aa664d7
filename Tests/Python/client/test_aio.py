"""The client on asyncio, against the real daemon: the same outcomes, and a loop that goes on meanwhile."""

import asyncio

import pytest

import kvtc
import kvtc.aio

from samples import GEOMETRY, TOKENS, random_pages, to_push


async def opened(client, **options):
    return await client.open_session("aio", geometry=GEOMETRY, page_tokens=TOKENS, **options)


def test_pages_go_out_and_come_back(daemon):
    keys, contents = random_pages(6)

    async def work():
        async with await kvtc.aio.connect(daemon.socket, arena_bytes=8 << 20) as client, await opened(client) as session:
            assert await session.push(to_push(keys, contents)) == [kvtc.PushOutcome.STORED] * 6
            async with session.leased([*keys, bytes(32)], 5000) as found:
                assert found.leading_run == 6 and found.lease
                parts = {part.index: bytes(part.data) async for part in session.pull(keys, lease=found.lease)}
            assert [parts[i] for i in range(6)] == contents
            assert await session.fetch([keys[0], bytes(32)]) == [contents[0], None]
            assert (await session.truncate(2 * TOKENS)).tokens == 2 * TOKENS
            assert (await session.policy()).tokens == 2 * TOKENS
            await session.set_policy(kvtc.Policy(sink=1))
            assert await session.prefetch(keys) == 0 and await session.touch(keys, pin=True) == 6
            await session.flush()
            pages = (await client.status())["pages"]
            assert pages["raw"] + pages["coded"] == 6
            assert await session.drop(keys[:2]) == 2 and await client.drop() == 4

    asyncio.run(work())


def test_the_loop_goes_on_while_the_daemon_does_not(daemon):
    keys, _ = random_pages(2)

    async def work():
        async with await kvtc.aio.connect(daemon.socket) as client, await opened(client) as session:
            with daemon.stopped():
                asked = asyncio.create_task(session.lookup(keys))
                turns = 0
                while turns < 1000:
                    await asyncio.sleep(0)
                    turns += 1
                assert not asked.done()
            assert (await asked).leading_run == 0

    asyncio.run(work())


def test_calls_go_on_beside_each_other(daemon):
    keys, contents = random_pages(32)

    async def work():
        async with await kvtc.aio.connect(daemon.socket, arena_bytes=8 << 20) as client:
            sessions = [await opened(client, identity=bytes([n]) * 32) for n in range(8)]
            outcomes = await asyncio.gather(*(session.push(to_push(keys, contents)) for session in sessions))
            assert outcomes == [[kvtc.PushOutcome.STORED] * 32] * 8
            assert await asyncio.gather(*(session.fetch(keys) for session in sessions)) == [contents] * 8

    asyncio.run(work())


def test_a_pull_that_is_left_gives_its_memory_back(daemon):
    keys, contents = random_pages(8)

    async def work():
        # Room for one pull at a time.
        async with await kvtc.aio.connect(daemon.socket, arena_bytes=1 << 20) as client, await opened(client) as session:
            await session.push(to_push(keys, contents))
            for _ in range(20):
                parts = session.pull(keys)
                await anext(parts)
                await parts.aclose()
            assert await session.fetch(keys) == contents

    asyncio.run(work())


def test_errors_are_those_of_the_client(daemon, tmp_path):
    async def work():
        with pytest.raises(kvtc.Unreachable):
            await kvtc.aio.connect(str(tmp_path / "nobody"))
        async with await kvtc.aio.connect(daemon.socket) as client:
            with pytest.raises(kvtc.KvtcError, match="pageTokens"):
                await client.open_session("bad", geometry=GEOMETRY, page_tokens=1)

    asyncio.run(work())
