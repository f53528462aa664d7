"""HUP: the configuration is read anew, what a running daemon can take over holds at once, and what it cannot is named."""

import os
import signal

import pytest

import kvtc

from conftest import toml
from samples import open_session, random_pages, to_push


@pytest.fixture
def running(make_daemon):
    """A daemon, and a way to have it read other settings."""
    daemon = make_daemon()
    times = {}

    def reload(message, **settings):
        config = daemon.directory / "kvtcd.toml"
        config.write_text("".join(f"{key} = {toml(value)}\n" for key, value in (daemon.settings | settings).items()))
        os.kill(daemon.pid, signal.SIGHUP)
        times[message] = times.get(message, 0) + 1
        return daemon.logged(message, times[message]).splitlines()[-1]

    return daemon, reload


def test_what_is_taken_over_holds_at_once(running):
    daemon, reload = running
    keys, contents = random_pages(3)
    with daemon.connect() as before:
        session = open_session(before)
        session.push(to_push(keys, contents))
        reload("configuration read anew", **{"limits.keys": 2, "log.level": "debug", "limits.in_flight": 7, "limits.sessions_per_user": 1})
        assert 'changed="log.level = \\"debug\\", limits.in_flight = 7, limits.keys = 2' in daemon.log.read_text()
        with pytest.raises(kvtc.KvtcError, match="3 are more than 2"):
            session.lookup(keys)
        with pytest.raises(kvtc.KvtcError, match="more than 1 sessions"):
            open_session(before)
        daemon.logged('level=debug msg="request refused"')
        # What a client was told when it connected stays true for it.
        with daemon.connect() as after:
            assert (before.server.max_in_flight, after.server.max_in_flight) == (64, 7)
        reload("configuration read anew")
        assert session.fetch(keys) == contents


def test_what_waits_for_a_restart_is_named_and_stays(running):
    daemon, reload = running
    reload("settings wait for a restart", **{"ram.budget": "32MiB", "workers.threads": 1, "limits.keys": 5})
    text = daemon.log.read_text()
    assert 'wanted="ram.budget = \\"32MiB\\", workers.threads = 1"' in text
    assert 'in_effect="ram.budget = \\"64MiB\\", workers.threads = 2"' in text
    assert 'changed="limits.keys = 5"' in text
    with daemon.connect() as client:
        assert client.status()["tiers"]["ram"]["budget"] == 64 << 20


def test_a_bad_file_changes_nothing(running):
    daemon, reload = running
    keys, contents = random_pages(3)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        reload("the configuration is wrong", **{"limits.keys": 1, "ram.code_above": 4711})
        text = daemon.log.read_text()
        assert "ram.code_above = 4711: out of range" in text and "configuration read anew" not in text
        assert session.fetch(keys) == contents
    (daemon.directory / "kvtcd.toml").unlink()
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.logged("cannot be read: No such file or directory")
