"""Pages as they are stored, and profiles as files, between the client and a real daemon."""

import asyncio
import hashlib
import os
import struct

import numpy as np
import pytest

import kvtc
from kvtc import Block, BlockMode, Mode, Policy, PullOutcome, PushOutcome, Residence, aio

from samples import to_push
from synthetic import LAYOUT, TOKENS, calibrate, document
from users import NOBODY, as_user

NAME = "synthetic.kvtc.safetensors"


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return calibrate(tmp_path_factory.mktemp("profile")).read_bytes()


def place(daemon, profile):
    directory = daemon.directory / "state" / "profiles"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NAME).write_bytes(profile)


def open_session(client, profile, policy=None, name="s"):
    client.load_profile(NAME)
    identifier = hashlib.sha256(profile).digest()
    return client.open_session(name, profile=identifier, layout=LAYOUT, policy=policy or Policy(mode=Mode.TRANSFORM, sink=4, window=0))


def pull(session, keys, **options):
    """The blocks of pages; None for those that are no hit."""
    found = {part.index: bytes(part.data) if part.outcome == PullOutcome.HIT else None for part in session.pull_blocks(keys, **options)}
    return [found[index] for index in range(len(keys))]


@pytest.mark.parametrize("arena", [0, 8 << 20], ids=["inline", "arena"])
def test_blocks_of_one_session_serve_another(daemon, profile, arena):
    place(daemon, profile)
    with daemon.connect(arena_bytes=arena) as client:
        session = open_session(client, profile)
        keys, contents = document(1, 20)
        session.push(to_push(keys, contents, TOKENS))
        client.flush()
        decoded = session.fetch(keys)
        found = session.lookup_blocks([*keys, bytes(32)])
        assert found.leading_run == 20 and found.pages[20].residence == Residence.ABSENT
        assert {page.mode for page in found.pages[:20]} == {BlockMode.TRANSFORM}
        blocks = pull(session, keys, lengths=[page.length for page in found.pages[:20]])
        assert [len(block) for block in blocks] == [page.length for page in found.pages[:20]]
        assert blocks == pull(session, keys)
        assert all(len(block) * 4 < len(page) for block, page in zip(blocks, contents))
        # Under other names, as another worker would push them: to the daemon they are what it coded itself.
        other = open_session(client, profile, name="other")
        names = [hashlib.sha256(key).digest() for key in keys]
        outcomes = other.push_blocks(Block(name, n * TOKENS, TOKENS, block) for n, (name, block) in enumerate(zip(names, blocks)))
        assert set(outcomes) == {PushOutcome.STORED}
        assert other.fetch(names) == decoded and pull(other, names) == blocks
        with pytest.raises(kvtc.KvtcError) as refused:
            other.push_blocks([Block(bytes(32), 20 * TOKENS, TOKENS, blocks[0])])
        assert refused.value.field == "entries[0].firstPosition"


def test_raw_pages_are_blocks_in_canonical_order(daemon, profile):
    place(daemon, profile)
    with daemon.connect() as client:
        session = open_session(client, profile, Policy(mode=Mode.TRANSFORM, sink=0, window=1 << 16))
        keys, contents = document(2, 3)
        session.push(to_push(keys, contents, TOKENS))
        assert [page.mode for page in session.lookup_blocks(keys).pages] == [BlockMode.RAW] * 3
        for block, page in zip(pull(session, keys), contents):
            magic, _, mode, element = struct.unpack_from("<4sHBB", block)
            assert (magic, mode, element) == (b"KVTB", 0, kvtc.Element.F16)
            rows = np.frombuffer(block, np.float16, offset=104).reshape(TOKENS, -1)
            whole = LAYOUT.views(kvtc.Geometry.from_heads(layers=4, kv_heads=2, head_dim=16), TOKENS, page)
            canonical = [whole[layer, role].reshape(TOKENS, -1) for role in (kvtc.Role.KEY, kvtc.Role.VALUE) for layer in range(4)]
            assert np.array_equal(rows.view(np.uint16), np.concatenate(canonical, 1).view(np.uint16))


def test_the_profiles_file_is_shared_and_cannot_change(daemon, profile):
    place(daemon, profile)
    with daemon.connect() as client, daemon.connect() as second:
        session = open_session(client, profile)
        content = session.profile_file()
        assert content == profile and content.readonly
        assert session.profile_file().obj is content.obj
        for _ in range(100):
            # A connection may ask for 64, and the client asks once.
            assert session.profile_file() == content
        assert open_session(second, profile).profile_file() == profile
        shared = [entry for entry in (daemon_files(daemon)) if "kvtc-profile" in entry]
        assert len(shared) == 1
        with pytest.raises(kvtc.KvtcError) as refused:
            client.open_session("none", geometry=kvtc.Geometry.from_heads(layers=1, kv_heads=1, head_dim=16)).profile_file()
        assert refused.value.code == kvtc.ErrorCode.UNKNOWN_PROFILE
    # It stays when the daemon is gone.
    assert daemon.stop() == 0
    assert hashlib.sha256(content).digest() == hashlib.sha256(profile).digest()


def daemon_files(daemon):
    directory = f"/proc/{daemon.pid}/fd"
    return [os.readlink(f"{directory}/{entry}") for entry in os.listdir(directory)]


def test_it_goes_on_over_a_restart(daemon, profile):
    place(daemon, profile)
    with daemon.connect() as client:
        session = open_session(client, profile)
        keys, contents = document(3, 6)
        session.push(to_push(keys, contents, TOKENS))
        client.flush()
        blocks = pull(session, keys)
        daemon.stop()
        daemon.start()
        found = session.lookup_blocks(keys)
        assert [page.residence for page in found.pages] == [Residence.DISK] * 6 and {page.mode for page in found.pages} == {None}
        assert [page.length for page in found.pages] == [len(block) for block in blocks]
        assert pull(session, keys) == blocks
        assert session.push_blocks([Block(bytes(32), 0, TOKENS, blocks[0])]) == [PushOutcome.STORED]


def test_calls_are_awaited_too(daemon, profile):
    place(daemon, profile)

    async def run():
        async with await aio.connect(daemon.socket) as client:
            await asyncio.to_thread(client.client.load_profile, NAME)
            policy = Policy(mode=Mode.TRANSFORM, sink=4, window=0)
            async with await client.open_session("s", profile=hashlib.sha256(profile).digest(), layout=LAYOUT, policy=policy) as session:
                keys, contents = document(4, 2)
                await session.push(to_push(keys, contents, TOKENS))
                await client.flush()
                lengths = [page.length for page in (await session.lookup_blocks(keys)).pages]
                blocks = {part.index: bytes(part.data) async for part in session.pull_blocks(keys)}
                assert [len(blocks[n]) for n in range(2)] == lengths
                assert await session.push_blocks([Block(bytes(32), 0, TOKENS, blocks[0])]) == [PushOutcome.STORED]
                assert await session.profile_file() == profile

    asyncio.run(run())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as several users")
def test_a_tenants_blocks_reach_no_other(make_daemon, profile):
    daemon = make_daemon(**{"socket.mode": "0666"})
    daemon.directory.chmod(0o755)
    place(daemon, profile)
    keys, contents = document(5, 2)
    with daemon.connect() as client:
        session = open_session(client, profile)
        session.push(to_push(keys, contents, TOKENS))
        client.flush()
        blocks = pull(session, keys)
    number = session.number

    def lie():
        """Another user's: the same name, and content that is another page's, or none at all."""
        with daemon.connect() as client:
            session = open_session(client, profile)
            assert session.fetch(keys) == [None, None] and pull(session, keys) == [None, None]
            with pytest.raises(kvtc.KvtcError):
                client.profile_files.clear()
                client._call(kvtc.protocol.messages.ProfileFile(number), kvtc.protocol.messages.ProfileFileReply)
            wrong = bytearray(blocks[1])
            wrong[52:56] = struct.pack("<I", 0)
            outcomes = []
            for block in (bytes(wrong), blocks[0][:-1], bytes(len(blocks[0]))):
                try:
                    session.push_blocks([Block(keys[0], 0, TOKENS, block)])
                except kvtc.KvtcError as error:
                    outcomes.append(error.field)
            outcomes.append(int(session.push_blocks([Block(keys[0], 0, TOKENS, blocks[0])])[0]))
            return outcomes

    assert as_user(NOBODY, lie) == ["entries[0].block"] * 3 + [int(PushOutcome.STORED)]
    with daemon.connect() as client:
        assert pull(open_session(client, profile), keys) == blocks
