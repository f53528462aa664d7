"""An orderly stop: it asks for time while it gets on, ends when nothing does, and says what it could not keep."""

import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from conftest import binary
from samples import open_session, random_pages, to_push

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


@pytest.fixture
def supervised(make_daemon):
    """Starts a daemon under strace with a fault, and stops it; gives its exit status and what the service manager heard."""
    daemon = make_daemon()
    daemon.stop()
    config = daemon.directory / "kvtcd.toml"

    def run(fault, work):
        address = str(daemon.directory / "manager")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open(daemon.log, "ab") as log:
            manager.bind(address)
            manager.settimeout(60)
            call = fault.split(":")[0]
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}"]
            process = subprocess.Popen(
                [*command, binary("kvtcd", "KVTCD"), "--config", str(config)], stderr=log, env=os.environ | {"NOTIFY_SOCKET": address}
            )
            heard = []
            while b"READY=1" not in (message := manager.recv(65536)):
                heard.append(message)
            work()
            child = int(open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()[0])
            os.kill(child, signal.SIGTERM)
            manager.settimeout(0.2)
            while process.poll() is None or heard[-1:] != [b""]:
                try:
                    heard.append(manager.recv(65536))
                except TimeoutError:
                    heard.append(b"" if process.poll() is not None else b".")
            return process.wait(), [message.decode() for message in heard]

    return daemon, run


def test_it_asks_for_time_while_it_gets_on(supervised):
    daemon, run = supervised
    keys, contents = random_pages(20)

    def push():
        with daemon.connect() as client:
            open_session(client).push(to_push(keys, contents))

    status, heard = run("pwrite64:delay_enter=200000:when=1+", push)
    assert status == 0, daemon.log.read_text()
    asked = [int(seconds) for message in heard for seconds in re.findall(r"EXTEND_TIMEOUT_USEC=(\d+)", message)]
    assert len(asked) >= 2 and min(asked) >= 30_000_000
    left = [int(count) for message in heard for count in re.findall(r"STOPPING=1\nSTATUS=.* (\d+) to write", message)]
    assert left and left == sorted(left, reverse=True), "the status tells how it gets on"
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_it_says_what_it_could_not_keep(supervised):
    daemon, run = supervised
    keys, contents = random_pages(7)

    def push():
        with daemon.connect() as client:
            open_session(client).push(to_push(keys, contents))

    status, _ = run("pwrite64:error=EIO:when=1+", push)
    assert status == 1
    assert re.search(r'level=error msg="not everything was written".* pages=7\b', daemon.log.read_text()), daemon.log.read_text()
