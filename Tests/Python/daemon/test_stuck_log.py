"""A log, a terminal or a service manager that nobody looks after: lines are dropped and counted, and nothing else stops."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import kvtc
from kvtc.protocol import messages, wire

from conftest import await_end, binary
from samples import open_session, random_pages, to_push

needs_strace = pytest.mark.skipif(not os.path.exists("/usr/bin/strace"), reason="needs strace")


def restart_under(daemon, prefix):
    """Restarts a daemon with its standard error somewhere else."""
    daemon.stop()
    daemon.prefix = prefix
    daemon.start()
    daemon.prefix = []


@pytest.fixture
def stuck(make_daemon):
    """A daemon that logs into a pipe of one page that is full; and its reading end."""
    daemon = make_daemon(**{"log.level": "debug"})
    fifo = daemon.directory / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    restart_under(daemon, ["bash", "-c", f'exec "$0" "$@" 2>"{fifo}"'])
    try:
        while os.write(reading, b"x" * 512):
            pass
    except BlockingIOError:
        pass
    yield daemon, reading
    os.close(reading)


def make_noise(daemon):
    """More than may wait for the log: many messages, with the longest of names."""
    name = "\x1b" * 256
    for _ in range(25):
        with daemon.connect(arena_bytes=0) as client:
            open_session(client, name).close()
            with pytest.raises(kvtc.KvtcError):
                client.flush(4711)


def test_a_pipe_that_nobody_reads_stops_nothing(stuck):
    daemon, reading = stuck
    keys, contents = random_pages(3)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        make_noise(daemon)
        assert session.fetch(keys) == contents
        dropped = client.status()["counters"]["log_dropped"]
        assert dropped > 0
    # Once somebody reads, the log says what it lacks.
    text, told, until = b"", 0, time.monotonic() + 30
    while told < dropped and time.monotonic() < until:
        try:
            text += os.read(reading, 65536)
        except BlockingIOError:
            time.sleep(0.01)
        told = sum(map(int, re.findall(rb'msg="lines were dropped: nobody read the log" dropped=(\d+)', text)))
    assert told >= dropped, text[-2000:]


def test_a_stop_is_heard_while_the_log_is_stuck(stuck):
    daemon, _ = stuck
    keys, contents = random_pages(3)
    with daemon.connect() as client:
        open_session(client).push(to_push(keys, contents))
    make_noise(daemon)
    assert daemon.stop() == 0
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


BROKEN_PIPE = "import os, sys\nr, w = os.pipe()\nos.dup2(w, 2)\nos.close(r)\nos.close(w)\nos.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize("redirection", ["2>&-", "0<&- 1>&- 2>&-", "2>/dev/full", None], ids=str)
def test_a_log_that_takes_nothing(make_daemon, redirection):
    daemon = make_daemon()
    prefix = ["bash", "-c", f'exec "$0" "$@" {redirection}'] if redirection else [sys.executable, "-c", BROKEN_PIPE]
    restart_under(daemon, prefix)
    keys, contents = random_pages(20)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        client.flush()
        for _ in range(5):
            open_session(client).close()
        # The log must not go into a file that was opened under its number.
        assert not re.search("segment|memfd|socket", os.readlink(f"/proc/{daemon.pid}/fd/2"))
    daemon.restart()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_a_service_manager_that_does_not_read_stops_nothing(make_daemon):
    """The queue of its socket is full from the first status line on."""
    daemon = make_daemon()
    daemon.stop()
    os.environ["WATCHDOG_USEC"] = "60000"
    try:
        start = daemon._wait_ready

        def ready(notify):
            # Kept open and not read any more, and filled up.
            daemon.notify = notify.dup()
            good = start(notify)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.setblocking(False)
                try:
                    while True:
                        other.sendto(b"STATUS=", notify.getsockname())
                except BlockingIOError:
                    pass
            return good

        daemon._wait_ready = ready
        daemon.start()
    finally:
        del os.environ["WATCHDOG_USEC"]
    try:
        keys, contents = random_pages(3)
        with daemon.connect() as client:
            session = open_session(client)
            session.push(to_push(keys, contents))
            assert session.fetch(keys) == contents
        assert daemon.stop() == 0
    finally:
        daemon.notify.close()


def test_a_service_manager_that_reads_nothing_holds_no_page_up(make_daemon):
    daemon = make_daemon()
    daemon.stop()
    address = str(daemon.directory / "manager")
    warning = "the service manager does not keep an arena"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open(daemon.log, "wb") as log:
        manager.bind(address)
        manager.settimeout(60)
        command = [binary("kvtcd", "KVTCD"), "--config", str(daemon.directory / "kvtcd.toml")]
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"NOTIFY_SOCKET": address})
        try:
            while b"READY=1" not in manager.recv(65536):
                pass
            keys, contents = random_pages(3)
            with daemon.connect(arena_bytes=0) as client:
                session = open_session(client)
                assert session.push(to_push(keys, contents)) == [kvtc.PushOutcome.STORED] * 3
            # The daemon waits for an answer, and nobody for the daemon; what matters is in the manager's queue.
            assert warning not in daemon.log.read_text()
            while b"FDSTORE=1" not in (heard := socket.recv_fds(manager, 65536, 1))[0]:
                pass
            os.close(heard[1][0])
        finally:
            process.send_signal(signal.SIGTERM)
            assert await_end(process, 60) == 0


@needs_strace
def test_a_slow_disk_does_not_starve_the_watchdog(make_daemon):
    """Signs of life go on while a flush waits for the disk, and so do other requests of the same client."""
    daemon = make_daemon()
    daemon.stop()
    address = str(daemon.directory / "watch")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(60)
        config = daemon.directory / "kvtcd.toml"
        fault = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=3000000:when=1+"]
        with open(daemon.log, "ab") as log:
            process = subprocess.Popen(
                [*fault, binary("kvtcd", "KVTCD"), "--config", str(config)], stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"},
            )
        try:
            while b"READY=1" not in manager.recv(65536):
                pass
            keys, contents = random_pages(3)
            with daemon.connect(arena_bytes=0) as client:
                session = open_session(client)
                session.push(to_push(keys, contents))
                flush = client.connection.start(messages.Flush(wire.NONE32))
                flushed = threading.Event()
                flush.when_done(flushed.set)
                signs = 0
                while not flushed.is_set():
                    client.ping()
                    assert session.fetch(keys) == contents
                    signs += manager.recv(65536).count(b"WATCHDOG=1")
                assert signs >= 2
                flush.reply(messages.FlushReply)
        finally:
            os.kill(int(open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()[0]), signal.SIGTERM)
            assert process.wait(60) == 0


def test_no_client_makes_the_log_grow_fast(make_daemon):
    daemon = make_daemon(**{"log.level": "debug"})
    start = time.monotonic()
    with daemon.connect(arena_bytes=0) as client:
        for _ in range(300):
            open_session(client).close()
            with pytest.raises(kvtc.KvtcError):
                client.flush(4711)
    until = time.monotonic() + 30
    while "similar lines left out" not in daemon.log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    seconds = time.monotonic() - start + 1
    text = daemon.log.read_text()
    for message in ("session opened", "session closed", "request refused"):
        assert text.count(f'msg="{message}"') <= 20 + seconds
    # None is lost without a word.
    assert daemon.stop() == 0
    text = daemon.log.read_text()
    left_out = re.findall(r'about="session opened" left_out=(\d+)', text)
    assert text.count('msg="session opened"') + sum(map(int, left_out)) == 300
