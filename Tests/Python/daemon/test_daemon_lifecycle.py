"""Starting and stopping the daemon."""

import os
import signal
import socket
import subprocess

import pytest

import kvtc

from conftest import binary
from samples import open_session, random_pages, to_push


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_after_the_start_is_an_orderly_stop(make_daemon, number):
    # Often, because it is a matter of which thread the kernel picks.
    daemon = make_daemon()
    for _ in range(20):
        assert daemon.stop(number) == 0, daemon.log.read_text()
        daemon.start()


def test_clients_are_told_that_the_daemon_stops(make_daemon):
    daemon = make_daemon()
    keys, contents = random_pages(3)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        assert daemon.stop() == 0
        with pytest.raises(kvtc.KvtcError):
            client.ping()
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_a_killed_daemon_serves_what_was_flushed(make_daemon):
    daemon = make_daemon()
    keys, contents = random_pages(20)
    with daemon.connect() as client:
        open_session(client).push(to_push(keys, contents))
        client.flush()
        assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_a_socket_from_the_service_manager(tmp_path, make_daemon):
    """LISTEN_FDS as systemd passes it: the daemon serves the socket it inherits and leaves its path alone."""
    program = binary("kvtcd", "KVTCD")
    path = str(make_daemon().directory / "given")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        command = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" --ram-budget 16MiB --directory "$1"'
        process = subprocess.Popen(
            ["bash", "-c", command, program, str(tmp_path / "state")],
            pass_fds=[listener.fileno()],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            with kvtc.connect(path) as client:
                assert client.status()["tiers"]["ram"]["budget"] == 16 << 20
        finally:
            process.terminate()
            assert process.wait(60) == 0
    assert os.path.exists(path)
