"""When pages are coded: what a policy asks for, what the configuration says, and what earlier daemons make of it."""

import json
import subprocess

import pytest

import kvtc
from kvtc import Code, Policy, Residence
from kvtc.protocol import messages

from conftest import binary
from samples import open_session, random_pages, to_push, until
from scripted import ScriptedDaemon

QUANT = {"mode": "quant8", "sink": 0, "window": 0}


@pytest.fixture
def daemon(make_daemon):
    """As it comes: nothing is said of when pages are coded."""
    made = make_daemon()
    made.stop()
    del made.settings["sessions.code"]
    return made.start()


def residence(session, keys):
    return session.lookup(keys).residence


def test_pages_stay_as_they_are_while_there_is_room(daemon, client):
    keys, contents = random_pages(6)
    session = open_session(client, policy=Policy(**QUANT))
    session.push(to_push(keys, contents))
    assert residence(session, keys) == [Residence.RAW] * 6
    assert session.fetch(keys) == contents, "exact, in a mode that is not"
    status = client.status()
    assert status["pages"]["waiting"] == 6 and status["queues"]["encode"] == 0
    assert [row["code"] for row in status["sessions"]] == ["under_pressure"]
    # What is to outlive the machine is coded before, as disks are for that.
    assert session.flush().pages == 6
    assert residence(session, keys) == [Residence.CODED] * 6
    assert client.status()["pages"]["waiting"] == 0


def test_pages_of_a_full_daemon_are_coded_and_none_is_lost(make_daemon):
    daemon = make_daemon(**{"ram.budget": "4MiB", "disk.budget": 0, "sessions.code": "under_pressure"})
    with daemon.connect() as client:
        session = open_session(client, policy=Policy(**QUANT | {"mode": "quant4"}))
        # A page takes 16 KiB raw and about 5 coded: raw there would be room for 256.
        keys, contents = random_pages(500)
        for start in range(0, 500, 20):
            session.push(kvtc.Page(keys[n], n * 32, contents[n]) for n in range(start, start + 20))
            # Coders that fall behind cost pages: a push does not wait for them for long.
            until(lambda: client.status()["queues"]["encode"] == 0)
        found = residence(session, keys)
        assert Residence.ABSENT not in found and found[0] == Residence.CODED and client.status()["counters"]["dropped"] == 0


@pytest.mark.parametrize("code", ["at_once", "idle"])
def test_a_policy_goes_before_the_configuration(daemon, client, code):
    keys, contents = random_pages(4)
    session = open_session(client, policy=Policy(**QUANT, code=code))
    assert session.policy().policy.code == Code[code.upper()]
    session.push(to_push(keys, contents))
    # Nothing of any session is asked for meanwhile.
    until(lambda: client.status()["pages"]["coded"] == 4, seconds=120)


def test_it_is_shown_and_changed_on_the_command_line(daemon, client):
    def kvtcctl(*arguments):
        command = [binary("kvtcctl", "KVTCCTL"), *map(str, arguments), "--socket", daemon.socket]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    keys, contents = random_pages(3)
    session = open_session(client, policy=Policy(**QUANT))
    session.push(to_push(keys, contents))
    assert "3 raw (3 may be coded when RAM runs short or it is quiet)" in kvtcctl("status")
    assert json.loads(kvtcctl("policy", "get", session.number, "--json"))["code"] is None
    assert "coded      when the daemon's configuration says" in kvtcctl("policy", "get", session.number)
    kvtcctl("policy", "set", session.number, "--code", "at_once")
    assert json.loads(kvtcctl("policy", "get", session.number, "--json"))["code"] == "at_once"
    until(lambda: residence(session, keys) == [Residence.CODED] * 3)
    kvtcctl("policy", "set", session.number, "--code", "default")
    assert session.policy().policy.code is None


def test_a_restart_finds_coded_pages_on_disk(daemon, client):
    keys, contents = random_pages(5)
    open_session(client, policy=Policy(**QUANT)).push(to_push(keys, contents))
    client.close()
    assert daemon.stop() == 0
    daemon.start()
    with daemon.connect() as again:
        assert again.status()["pages"]["coded"] == 5
        assert residence(open_session(again, policy=Policy(**QUANT)), keys) == [Residence.DISK] * 5


def test_an_earlier_daemon_is_told_nothing_of_it(tmp_path):
    server = ScriptedDaemon(tmp_path / "s", features=messages.FEATURES & ~messages.FEATURE_CODE)
    server.override[messages.SetPolicy.OPCODE] = lambda server, *rest: server.reply(*rest, messages.SetPolicyReply(0, []))
    try:
        with kvtc.connect(server.path, timeout=10, arena_bytes=0) as client:
            policy = Policy(code="idle", near=0.5)
            policy.pin = True
            session = open_session(client, policy=policy)
            session.set_policy(policy)
            told = [request.policy for request in server.seen if hasattr(request, "policy")]
            assert [(each.code, each.pin, each.near) for each in told] == [(None, True, 0.5)] * 2
            # A later daemon hears it.
            server.hello["features"] = messages.FEATURES
        with kvtc.connect(server.path, timeout=10, arena_bytes=0) as client:
            open_session(client, policy=policy)
            assert server.seen[-1].policy.code == Code.IDLE
    finally:
        server.close()
