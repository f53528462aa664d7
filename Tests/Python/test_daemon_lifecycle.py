"""Starting and stopping the daemon, and what it says about a configuration it can't serve with."""

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


def check(tmp_path, text):
    """Exit status and complaint of --check-config for a configuration."""
    file = tmp_path / "kvtcd.toml"
    file.write_text(text)
    command = [binary("kvtcd", "KVTCD"), "--check-config", "--config", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    "text, where, what",
    [
        ('[ram]\nbudgt = "1GiB"\n', ":2:1: ram.budgt", "budget"),
        ("[ram]\nbudget = true\n", ":2:1: ram.budget", "bytes"),
        ('[ram]\nbudget = "900TiB"\n', "ram.budget", "machine"),
        ('[disk]\ndirectory = "/proc/none"\n', "disk.directory", "cannot make"),
        ('[socket]\npath = ""\n', "socket.path", "needed"),
        ('[log]\nlevel = "loud"\n', ":2:1: log.level", "debug"),
        ("[ram\n", "kvtcd.toml:1", ""),
    ],
    ids=["unknown key", "wrong type", "too large", "unwritable", "no path", "unknown value", "syntax"],
)
def test_bad_configurations_name_the_place(tmp_path, text, where, what):
    status, complaint = check(tmp_path, text)
    assert status == 78 and where in complaint and what in complaint, complaint


def test_a_good_configuration_is_good(tmp_path):
    assert check(tmp_path, f'[ram]\nbudget = "64MiB"\n[disk]\ndirectory = "{tmp_path}/state/pages"\n') == (0, "")
    assert not (tmp_path / "state").exists(), "checking leaves nothing behind"


def test_json_alone_starts_no_daemon():
    result = subprocess.run([binary("kvtcd", "KVTCD"), "--json"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 64 and "--fsck" in result.stderr
