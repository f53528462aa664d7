"""A daemon that is drained gives back what it has, takes nothing more, and takes it again when it is told to."""

import json
import subprocess

import pytest

import kvtc
from kvtc import ErrorCode

from conftest import binary
from samples import open_session, random_pages, to_push


def kvtcctl(daemon, *arguments):
    command = [binary("kvtcctl", "KVTCCTL"), "drain", "--socket", daemon.socket, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def refused(call):
    with pytest.raises(kvtc.KvtcError) as caught:
        call()
    assert (caught.value.code, caught.value.field) == (ErrorCode.LIMIT_EXCEEDED, "drain")


def test_it_gives_and_does_not_take_until_it_ends(daemon):
    keys, contents = random_pages(6)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents)[:4])
        written = json.loads(kvtcctl(daemon, "--json"))
        assert written["draining"] is True and written["pages"] == 4
        assert client.status()["state"] == "draining"
        refused(lambda: open_session(client))
        refused(lambda: session.push(to_push(keys, contents)[4:]))
        assert session.fetch(keys) == [*contents[:4], None, None]
        assert kvtcctl(daemon, "--end") == "sessions and pages are taken again\n"
        session.push(to_push(keys, contents)[4:])
        assert open_session(client).fetch(keys) == contents and client.status()["state"] == "ready"


def test_without_a_disk_there_is_nothing_to_write(make_daemon):
    daemon = make_daemon(**{"disk.budget": 0})
    assert "pages are in RAM only" in kvtcctl(daemon)
    assert json.loads(kvtcctl(daemon, "--json")) == {"draining": True, "pages": None, "bytes": None}
    # A restart takes pages again.
    daemon.restart()
    with daemon.connect() as client:
        open_session(client)
