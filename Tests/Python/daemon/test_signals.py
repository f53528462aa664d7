"""Signals of every kind: an order to stop is an orderly stop, and nothing else ends the daemon or empties its RAM."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import sys
import termios
import threading
import time

import pytest

from conftest import HARMLESS, STOP
from samples import open_session, random_pages, to_push
from synthetic import calibrate


def run_as(program):
    """A prefix that runs some Python before it becomes the daemon."""
    return [sys.executable, "-c", f"import os, signal, sys\n{program}\nos.execv(sys.argv[1], sys.argv[1:])"]


@pytest.mark.parametrize("number", STOP, ids=lambda number: number.name)
def test_a_stop_writes_what_ram_holds(make_daemon, number):
    daemon = make_daemon()
    keys, contents = random_pages(4)
    with daemon.connect() as client:
        open_session(client).push(to_push(keys, contents))
    assert daemon.stop(number) == 0, daemon.log.read_text()
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_no_other_signal_ends_it_or_empties_ram(make_daemon):
    daemon = make_daemon(**{"disk.budget": 0})
    keys, contents = random_pages(4)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        for number in HARMLESS:
            os.kill(daemon.pid, number)
            client.ping()
        # All of them at once, to every thread.
        for thread in os.listdir(f"/proc/{daemon.pid}/task"):
            for number in HARMLESS:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(thread), number)
        assert session.fetch(keys) == contents
        assert daemon.process.poll() is None


def test_hup_reads_new_profiles(daemon, tmp_path):
    profile = calibrate(tmp_path)
    directory = daemon.directory / "state" / "profiles"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / profile.name).write_bytes(profile.read_bytes())
    with daemon.connect() as client:
        assert client.profiles() == []
        os.kill(daemon.pid, signal.SIGHUP)
        until = time.monotonic() + 60
        while not client.profiles() and time.monotonic() < until:
            client.ping()
        assert [row["file"] for row in client.profiles()] == [profile.name]


@pytest.mark.parametrize(
    "before",
    [
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)]",
    ],
    ids=["blocked", "ignored"],
)
def test_what_the_parent_did_with_signals_does_not_matter(make_daemon, before):
    daemon = make_daemon()
    daemon.stop()
    daemon.prefix = run_as(before)
    daemon.start()
    os.kill(daemon.pid, signal.SIGHUP)
    with daemon.connect() as client:
        client.ping()
    assert daemon.stop() == 0
    daemon.prefix = []


def test_a_second_order_to_stop_does_not_cut_the_first_short(make_daemon):
    daemon = make_daemon()
    keys, contents = random_pages(200)
    with daemon.connect() as client:
        open_session(client).push(to_push(keys, contents))
    over = threading.Event()

    def insist():
        while not over.is_set():
            for number in (*STOP, signal.SIGHUP):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon.pid, number)

    # Not reaped before the thread ends, so that the number stays the daemon's.
    thread = threading.Thread(target=insist)
    thread.start()
    descriptor = os.pidfd_open(daemon.pid)
    try:
        assert select.select([descriptor], [], [], 60)[0]
    finally:
        over.set()
        thread.join()
        os.close(descriptor)
    assert daemon.process.wait() == 0, daemon.log.read_text()
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_a_terminal_that_is_closed_takes_nothing_along(make_daemon):
    daemon = make_daemon()
    daemon.stop()
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    # A session of its own whose terminal is the daemon's standard error: its end is a SIGHUP, and errors of every write.
    daemon.prefix = run_as(
        f"import fcntl, termios\nos.setsid()\nfd = os.open({name!r}, os.O_RDWR)\n"
        "fcntl.ioctl(fd, termios.TIOCSCTTY, 0)\n[os.dup2(fd, n) for n in (0, 1, 2)]"
    )
    daemon.start()
    os.close(slave)
    keys, contents = random_pages(3)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        os.close(master)
        for _ in range(5):
            with daemon.connect() as other:
                assert open_session(other).fetch(keys) == contents
        assert client.status()["state"] == "ready"
    assert daemon.stop() == 0
    daemon.prefix = []


def test_a_terminal_that_is_held_holds_nothing(make_daemon):
    """Control-S: nobody takes the output of the terminal until Control-Q."""
    daemon = make_daemon(**{"log.level": "debug"})
    daemon.stop()
    master, slave = pty.openpty()
    daemon.prefix = run_as(f"fd = os.open({os.ttyname(slave)!r}, os.O_RDWR | os.O_NOCTTY)\nos.dup2(fd, 2)")
    daemon.start()
    termios.tcflow(slave, termios.TCOOFF)
    fcntl.fcntl(master, fcntl.F_SETFL, os.O_NONBLOCK)
    for _ in range(5):
        with daemon.connect() as client:
            open_session(client).close()
    assert daemon.stop() == 0
    daemon.prefix = []
    os.close(slave)
    os.close(master)
