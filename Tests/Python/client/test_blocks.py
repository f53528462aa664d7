"""Blocks between the client and a scripted server: one that knows them, and an earlier one."""

import pytest
from test_client import PAGE, TOKENS, pages, to_push

import kvtc
from kvtc import Block, BlockMode, ErrorCode, PullOutcome, Residence
from kvtc.protocol import messages, wire

from scripted import ScriptedDaemon

EARLIER = messages.FEATURES & ~messages.FEATURE_BLOCKS


class BlockDaemon(ScriptedDaemon):
    """Takes whatever is pushed as a block."""

    def on_push_blocks(self, connection, request_id, request):
        self.on_push(connection, request_id, request)

    def on_lookup_blocks(self, connection, request_id, request):
        found = [self.pages.get(key) for key in request.keys]
        there = [messages.StoredPage(0, 255, 0, 0) if page is None else messages.StoredPage(2, 2, TOKENS, len(page)) for page in found]
        run = next((n for n, page in enumerate(found) if page is None), len(found))
        self.reply(connection, request_id, request, messages.LookupBlocksReply(9 if request.lease_ms else 0, run, there))

    def on_pull_blocks(self, connection, request_id, request):
        self.on_pull(connection, request_id, request)

    def on_release(self, connection, request_id, request):
        self.reply(connection, request_id, request, messages.Empty())


@pytest.fixture
def server(tmp_path):
    daemon = BlockDaemon(tmp_path / "s", features=messages.FEATURES)
    yield daemon
    daemon.close()


@pytest.fixture
def earlier(tmp_path):
    daemon = ScriptedDaemon(tmp_path / "e", features=EARLIER)
    yield daemon
    daemon.close()


def connected(daemon, arena):
    client = kvtc.connect(daemon.path, timeout=10, arena_bytes=arena)
    return client, client.open_session("chat", page_tokens=TOKENS)


@pytest.fixture(params=[0, 1 << 20], ids=["inline", "arena"])
def arena(request):
    return request.param


def blocks(count):
    """Blocks of various lengths."""
    keys, data = pages(count)
    return keys, [page.tobytes()[: 200 + 13 * n % 700] for n, page in enumerate(data)]


def seen(server, *kinds):
    return [request for request in server.seen if type(request) in kinds]


def test_blocks_go_there_and_come_back(server, arena):
    client, session = connected(server, arena)
    with client:
        assert client.has_blocks
        keys, data = blocks(300)
        outcomes = session.push_blocks(Block(key, n * TOKENS, TOKENS, block) for n, (key, block) in enumerate(zip(keys, data)))
        assert set(outcomes) == {kvtc.PushOutcome.STORED}
        assert not seen(server, messages.Push) and seen(server, messages.PushBlocks)
        found = session.lookup_blocks([*keys, bytes(32)], lease_ms=1000)
        assert found.leading_run == 300 and found.lease.number == 9
        assert found.pages[0] == kvtc.StoredPage(Residence.CODED, BlockMode.TRANSFORM, TOKENS, len(data[0]))
        assert found.pages[300] == kvtc.StoredPage(Residence.ABSENT, None, 0, 0)
        for lengths in (None, [page.length for page in found.pages]):
            parts = {}
            for part in session.pull_blocks([*keys, bytes(32)], lease=found.lease, lengths=lengths):
                assert part.is_block and part.key == ([*keys, bytes(32)])[part.index]
                parts[part.index] = (part.outcome, bytes(part.data))
            assert parts == {n: (PullOutcome.HIT, block) for n, block in enumerate(data)} | {300: (PullOutcome.MISS, b"")}
        assert not seen(server, messages.Pull)
        # Room is laid out for what is there, not for whole pages.
        asked = seen(server, messages.PullBlocks)[-1].entries[0]
        assert len(data[0]) <= asked.capacity < len(data[0]) + 64
        found.lease.release()


def test_parts_that_are_held_stay_what_they_are_until_they_are_let_go(server, arena):
    client, session = connected(server, arena)
    with client:
        keys, data = blocks(900)
        session.push_blocks(Block(key, n * TOKENS, TOKENS, block) for n, (key, block) in enumerate(zip(keys, data)))
        # Each time some hundred kilobytes of a megabyte, in which all of them do not fit twice.
        for _ in range(10):
            held = []
            for part in session.pull_blocks(keys):
                if part.index < 200:
                    held.append((part, part.hold()))
            assert len(held) == 200 and all(bytes(part.data) == data[part.index] for part, _ in held)
            for _, let_go in held:
                let_go()


def test_a_block_that_has_grown_is_asked_for_again(server, arena):
    client, session = connected(server, arena)
    with client:
        keys, data = blocks(5)
        session.push_blocks([Block(key, n * TOKENS, TOKENS, block) for n, (key, block) in enumerate(zip(keys, data))])

        def pull(server, connection, request_id, request):
            for index, entry in enumerate(request.entries):
                block = server.pages[entry.key]
                fits = entry.capacity >= len(block)
                part = messages.PullPart(index, 0, 1, 0 if fits else 3, entry.offset, len(block) if fits else 0, b"")
                if fits and request.arena == wire.NONE32:
                    part.inline, part.offset = block, 0
                elif fits:
                    server.arena[entry.offset : entry.offset + len(block)] = block
                server.reply(connection, request_id, request, part, wire.MORE)
            server.reply(connection, request_id, request, messages.PullReply(0, 0, 0, 0))

        server.override[wire.Opcode.PULL_BLOCKS] = pull
        lengths = [len(block) for block in data]
        server.pages[keys[2]] = b"x" * (PAGE + 104)
        server.pages[keys[3]] = b"x" * (PAGE + 10000)
        parts = {part.index: (part.outcome, len(part.data)) for part in session.pull_blocks(keys, lengths=lengths)}
        expected = {n: (PullOutcome.HIT, length) for n, length in enumerate(lengths)}
        # A block larger than any has no room however often it is asked for.
        assert parts == expected | {2: (PullOutcome.HIT, PAGE + 104), 3: (PullOutcome.NO_SPACE, 0)}
        assert [len(request.entries) for request in seen(server, messages.PullBlocks)] == [5, 2]


def test_an_earlier_daemon_is_asked_for_pages(earlier, arena):
    client, session = connected(earlier, arena)
    with client:
        assert not client.has_blocks
        keys, data = pages(5)
        session.push(to_push(keys, data))

        def lookup(server, connection, request_id, request):
            server.reply(connection, request_id, request, messages.LookupReply(0, 2, bytes([1, 3, 0, 2, 1])))

        earlier.override[wire.Opcode.LOOKUP] = lookup
        found = session.lookup_blocks(keys)
        assert found.leading_run == 2 and found.lease is None
        assert [page.length for page in found.pages] == [PAGE, PAGE, 0, PAGE, PAGE]
        assert [page.mode for page in found.pages] == [BlockMode.RAW, None, None, None, BlockMode.RAW]
        parts = {part.index: (part.is_block, bytes(part.data)) for part in session.pull_blocks(keys)}
        assert parts == {n: (False, page.tobytes()) for n, page in enumerate(data)}
        # Byte for byte what a client sends that knows no blocks.
        first = len(earlier.seen)
        session.fetch(keys)
        decoded = [request.encode() for request in earlier.seen[first:]]
        assert [request.encode() for request in seen(earlier, messages.Pull)][: len(decoded)] == decoded
        for call in (lambda: session.push_blocks([Block(keys[0], 0, TOKENS, b"x")]), session.profile_file):
            with pytest.raises(kvtc.KvtcError, match="knows no blocks"):
                call()
        assert all(request.OPCODE <= wire.Opcode.STORE_PROFILE for request in earlier.seen)


def test_what_the_daemon_refuses_is_raised_with_its_field(server):
    client, session = connected(server, 0)
    with client:
        server.override[wire.Opcode.PUSH_BLOCKS] = lambda server, connection, request_id, request: server.error(
            connection, request_id, request, ErrorCode.INVALID_FIELD, "entries[0].profile"
        )
        with pytest.raises(kvtc.KvtcError) as refused:
            session.push_blocks([Block(bytes(32), 0, TOKENS, b"x")])
        assert (refused.value.code, refused.value.field) == (ErrorCode.INVALID_FIELD, "entries[0].profile")


def test_blocks_keep_to_deadlines(server):
    client, session = connected(server, 0)
    with client:
        for opcode in (wire.Opcode.PULL_BLOCKS, wire.Opcode.LOOKUP_BLOCKS, wire.Opcode.PUSH_BLOCKS, wire.Opcode.PROFILE_FILE):
            server.override[opcode] = lambda *_: None
        for call in (
            lambda: list(session.pull_blocks([bytes(32)], lengths=[100])),
            lambda: session.lookup_blocks([bytes(32)]),
            lambda: session.push_blocks([Block(bytes(32), 0, TOKENS, b"x")]),
            session.profile_file,
        ):
            with pytest.raises(kvtc.RequestTimedOut), kvtc.within(0.05):
                call()
        with pytest.raises(kvtc.RequestTimedOut), client.bounded(0.05):
            session.lookup_blocks([bytes(32)])
        # The breaker is open: not asked.
        with pytest.raises(kvtc.Unavailable), client.bounded(0.05):
            session.lookup_blocks([bytes(32)])
