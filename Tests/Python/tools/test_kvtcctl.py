"""kvtcctl against the real daemon: what it prints, and the exit statuses that scripts rely on."""

import json
import os
import subprocess

import pytest

from conftest import binary
from samples import TOKENS, open_session, random_pages, to_push


@pytest.fixture
def kvtcctl(daemon):
    program = binary("kvtcctl", "KVTCCTL")

    def run(*arguments, status=0, socket=daemon.socket):
        environment = {**os.environ, "KVTC_SOCKET": socket}
        result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=60)
        assert result.returncode == status, result.stderr
        return result.stdout if status == 0 else result.stderr

    return run


def test_status(kvtcctl, client):
    keys, contents = random_pages(5)
    with open_session(client, "chat of ann") as session:
        session.push(to_push(keys, contents))
        session.fetch(keys)
        session.fetch([bytes(32)])
        document = json.loads(kvtcctl("status", "--json"))
        assert document["tiers"]["ram"]["pages"] == 5 and document["counters"]["hits"] == 5
        assert document["counters"]["misses"] == 1 and document["latency_us"]["push"]["count"] >= 1
        text = kvtcctl("status")
        for expected in ("RAM", "disk", "chat of ann", "lossless", "5 hits, 1 miss, 0 corrupt (83.3 % hits)"):
            assert expected in text, text
    assert "no sessions" in kvtcctl("status")


def test_sessions(kvtcctl, client):
    assert kvtcctl("sessions") == "no sessions\n" and kvtcctl("sessions", "--json") == "[]\n"
    with open_session(client, "one") as session:
        assert [row["id"] for row in json.loads(kvtcctl("sessions", "--json"))] == [session.number]
        assert "one" in kvtcctl("sessions")


def test_flush(kvtcctl, client):
    keys, contents = random_pages(3)
    session = open_session(client)
    session.push(to_push(keys, contents))
    assert kvtcctl("flush").startswith("flushed 3 pages")
    assert json.loads(kvtcctl("flush", "--session", session.number, "--json"))["pages"] >= 0
    assert json.loads(kvtcctl("status", "--json"))["tiers"]["disk"]["pages"] == 3
    assert "unknownSession" in kvtcctl("flush", "--session", 4711, status=1)


def test_policy(kvtcctl, client):
    session = open_session(client)
    before = json.loads(kvtcctl("policy", "get", session.number, "--json"))
    assert (before["sink"], before["window"], before["mode"]) == (4, 128, "lossless")
    assert f"policy of session {session.number} changed\n" == kvtcctl(
        "policy", "set", session.number, "--window", 256, "--mode", "quant8", "--protect", "100-164", "--pin", "--priority", 200
    )
    after = json.loads(kvtcctl("policy", "get", session.number, "--json"))
    changed = {"window": 256, "mode": "quant8", "protected": [[100, 164]], "pinned": True, "priority": 200}
    assert after == before | changed
    kvtcctl("policy", "set", session.number, "--unprotect", "--no-pin")
    assert "nothing else" in kvtcctl("policy", "get", session.number)
    assert "profile" in kvtcctl("policy", "set", session.number, "--mode", "transform", status=1)


def test_policy_reports_what_is_protected_too_late(kvtcctl, client):
    keys, contents = random_pages(10)
    session = open_session(client)
    kvtcctl("policy", "set", session.number, "--mode", "quant4", "--window", 0, "--sink", 0)
    session.push(to_push(keys, contents))
    client.flush()
    reply = json.loads(kvtcctl("policy", "set", session.number, "--window", 3 * TOKENS, "--json"))
    assert reply["already_coded"] == [[7 * TOKENS, 10 * TOKENS]]


def test_drop(kvtcctl, client):
    keys, contents = random_pages(4)
    session = open_session(client)
    session.push(to_push(keys, contents))
    assert kvtcctl("drop", keys[0].hex()) == "dropped 1 page\n"
    assert json.loads(kvtcctl("drop", "--session", session.number, "--json")) == {"dropped": 3}
    assert kvtcctl("drop", "--all") == "dropped 0 pages\n"
    for arguments in ([], ["--all", "--session", 1], ["abcd"], ["--all", keys[0].hex()]):
        kvtcctl("drop", *arguments, status=64)


def test_profiles(kvtcctl):
    assert json.loads(kvtcctl("profile", "list", "--json")) == []
    assert "no profiles" in kvtcctl("profile", "list")
    assert "the daemon has none of that name" in kvtcctl("profile", "load", "none.kvtc.safetensors", status=1)
    assert "some/path: can't be read" in kvtcctl("profile", "load", "some/path", status=1)


def test_ping(kvtcctl):
    assert json.loads(kvtcctl("ping", "--count", 3, "--size", 1000, "--json")).keys() >= {"min_us", "p50_us", "max_us"}
    assert "3 round trips" in kvtcctl("ping", "--count", 3)


def test_nobody_there(kvtcctl, tmp_path):
    message = kvtcctl("status", socket=str(tmp_path / "none"), status=69)
    assert "systemctl start kvtcd.socket" in message
    assert "none" in kvtcctl("ping", "--socket", str(tmp_path / "none"), status=69)


@pytest.mark.parametrize("arguments", [["stats"], ["status", "--watch", "0"], ["policy", "set", "1"], ["ping", "--count", "0"]])
def test_wrong_usage(kvtcctl, arguments):
    kvtcctl(*arguments, status=64)


def test_every_command_teaches(kvtcctl):
    commands = ["status", "flush", "sessions", "policy get", "policy set", "drop", "profile list", "profile load", "ping"]
    for command in commands:
        text = kvtcctl(*command.split(), "--help")
        assert "EXAMPLES" in text and "--json" in text and "--socket" in text, command
    assert "EXIT STATUS" in kvtcctl("--help")
    assert "kvtcctl" in kvtcctl("--generate-completion-script", "bash")
