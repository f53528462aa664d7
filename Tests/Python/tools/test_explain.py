"""``kvtcctl explain``: where pages are and why, for people and programs, and what strangers see of them."""

import asyncio
import json
import os
import subprocess

import pytest

import kvtc
from kvtc import aio

from conftest import Daemon, binary
from samples import TOKENS, open_session, random_pages, to_push, until
from users import NOBODY, as_user

DOCUMENT = {"session", "first", "next", "pages"}
SESSION = {"id", "name", "tenant", "mode", "code", "sink", "window", "tokens", "pages", "token_bytes", "is_idle"}
PAGE = {
    "key", "tenant", "first", "tokens", "place", "form", "is_on_disk", "mode", "profile", "bytes", "raw_bytes", "distortion", "exact_tokens",
    "reasons", "sessions", "priority", "leases", "expires_s", "pull_us", "pages_before", "bytes_before", "segments_before",
}  # fmt: skip
KEYS, CONTENTS = random_pages(20)
NOWHERE = "00" * 32


@pytest.fixture(scope="module")
def daemon():
    daemon = Daemon(**{"socket.mode": "0666"}).start()
    os.chmod(daemon.directory, 0o755)
    yield daemon
    daemon.close()


@pytest.fixture(scope="module")
def session(daemon):
    """Twenty pages: the first ones pinned, the last two in the window, all of them on disk as well."""
    with daemon.connect() as client:
        policy = kvtc.Policy(mode=kvtc.Mode.QUANT4, sink=4, window=2 * TOKENS)
        with open_session(client, "chat \x1b[2J of ann", policy=policy) as session:
            session.push(to_push(KEYS, CONTENTS))
            until(lambda: session.lookup(KEYS).residence.count(kvtc.Residence.CODED) == 18)
            client.flush()
            session.fetch(KEYS)
            session.touch(KEYS[:3], pin=True)
            yield session


def kvtcctl(daemon, *arguments, status=0, **variables):
    command = [binary("kvtcctl", "KVTCCTL"), "explain", *map(str, arguments)]
    environment = {"PATH": os.environ["PATH"], "KVTC_SOCKET": daemon.socket, "LC_ALL": "C.UTF-8", "COLUMNS": "80"} | variables
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert result.returncode == status, result.stderr
    return result.stdout if status == 0 else result.stderr


def test_of_a_session_all_pages_in_order(daemon, session):
    document = json.loads(kvtcctl(daemon, session.number, "--json"))
    assert set(document) == DOCUMENT and set(document["session"]) == SESSION
    pages = document["pages"]
    assert all(set(page) == PAGE for page in pages)
    assert [page["key"] for page in pages] == [key.hex() for key in KEYS]
    assert [page["reasons"] for page in pages] == (
        [["coded", "sink", "pinned"], ["coded", "pinned"], ["coded", "pinned"]] + [["coded"]] * 15 + [["window"]] * 2
    )
    assert [page["mode"] for page in pages] == ["quant4"] * 18 + ["raw"] * 2
    assert all(page["place"] == "ram" and page["is_on_disk"] and page["segments_before"] == 0 for page in pages)
    assert pages[0]["exact_tokens"] == 4 and pages[1]["distortion"] > 0 and pages[-1]["distortion"] == 0
    # What is pinned leaves last, and of the others the end of the conversation first.
    assert [page["pages_before"] for page in pages[3:]] == list(range(16, -1, -1)) and pages[0]["pages_before"] >= 17
    # As STATUS has it for pages of the kind.
    (costs,) = session.client.status()["restore_costs"]
    assert pages[1]["pull_us"] == pytest.approx(costs["coded"]["us_per_token"] * TOKENS)
    assert session.explain(18)["first"] == 18 and len(session.explain(18)["pages"]) == 2


def test_pages_that_are_alike_are_a_line_and_everything_fits(daemon, session):
    text = kvtcctl(daemon, session.number)
    rows = [line for line in text.splitlines() if "RAM+disk" in line]
    assert len(rows) == 4 and "96–575" in text and f"session {session.number} chat \\u{{1b}}[2J of ann" in text
    for reason in ("coded", "sink", "pinned", "window"):
        assert f"\n{reason}: " in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert kvtcctl(daemon, session.number, LC_ALL="C").isascii()


def test_of_a_key_everything(daemon, session):
    text = kvtcctl(daemon, KEYS[0].hex())
    for expected in ("in RAM, and on disk as well", "tokens    0–31", "4 of 32 tokens exact", "pinned: never dropped", f"sessions  {session.number}"):
        assert expected in text, text
    # More than one, of which one is not there.
    text = kvtcctl(daemon, KEYS[5].hex(), NOWHERE)
    assert text.count("page ") >= 2 and "nowhere" in text
    (page,) = session.client.explain([KEYS[0]])["pages"]
    assert page == json.loads(kvtcctl(daemon, KEYS[0].hex(), "--json"))["pages"][0]


def test_what_is_not_there_is_told_with_what_to_do(daemon, session):
    assert "kvtcctl sessions" in kvtcctl(daemon, 99, status=1)
    message = kvtcctl(daemon, NOWHERE, status=1)
    assert "no page is kept under this key" in message and "kvtcctl explain SESSION" in message
    for wrong in (["x"], [session.number, KEYS[0].hex()], ["ab" * 31], []):
        assert "kvtcctl explain" in kvtcctl(daemon, *wrong, status=64)
    with pytest.raises(kvtc.KvtcError) as caught:
        session.client.explain([])
    assert caught.value.field == "session"


def test_watching_as_json_is_an_object_a_line(daemon, session):
    command = [binary("kvtcctl", "KVTCCTL"), "explain", str(session.number), "--json", "--watch", "0.1", "--socket", daemon.socket]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        documents = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()
    assert all(set(document) == DOCUMENT for document in documents)
    command[1:3] = ["sessions"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert [json.loads(process.stdout.readline())[0]["id"] for _ in range(2)] == [session.number] * 2
        process.terminate()


def test_asking_is_no_use(session):
    before = [page["pages_before"] for page in session.explain()["pages"]]
    session.client.explain([KEYS[10]])
    assert [page["pages_before"] for page in session.explain()["pages"]] == before


def test_for_programs_on_asyncio(daemon, session):
    async def ask():
        async with await aio.connect(daemon.socket) as client:
            return await client.explain([KEYS[0]])

    assert asyncio.run(ask())["pages"][0]["key"] == KEYS[0].hex()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_page_of_another_user_looks_like_none(daemon, session):
    def ask():
        with kvtc.connect(daemon.socket, arena_bytes=0) as client:
            # With a model of the same kind, so that the key would be the same.
            open_session(client)
            found, missing = client.explain([KEYS[0]])["pages"] + client.explain([bytes(32)])["pages"]
            try:
                client._call(kvtc.protocol.messages.Explain(session.number), kvtc.protocol.messages.JsonReply)
            except kvtc.KvtcError as error:
                return [found | {"key": ""}, missing | {"key": ""}, error.name, error.message]

    found, missing, name, message = as_user(NOBODY, ask)
    assert found == missing and found["place"] == "absent"
    assert (name, message) == ("unknownSession", f"no session {session.number}")
