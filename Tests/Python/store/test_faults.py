"""What can go wrong around a real daemon: it dies at any write, the disk is full, fails or dawdles, descriptors and memory run
out, clients die at any step."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import kvtc
from kvtc import ErrorCode, PushOutcome
from kvtc.protocol import messages, wire

import samples
from faults import strace
from process_state import ProcessState
from raw import Raw
from samples import open_session, random_pages, to_push

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


def start(make_daemon, prefix, **settings):
    """A daemon that runs under another program; restarts are without it."""
    daemon = make_daemon(**settings)
    daemon.stop()
    daemon.prefix = prefix
    daemon.start()
    daemon.prefix = []
    return daemon


@needs_strace
def test_killed_at_every_write(make_daemon):
    """Push, flush, push, drop, flush; the daemon dies at the first write call, the second, … until it does not."""
    keys, contents = random_pages(5)
    survived = False
    number = 0
    while not survived:
        number += 1
        daemon = make_daemon()
        daemon.stop()
        daemon.prefix = strace("pwrite64", "signal=SIGKILL", number)
        flushed, gone = 0, False
        try:
            daemon.start()
        except BaseException:
            assert daemon.process.poll() is not None, "it may die while it starts, but not fail"
        else:
            try:
                with daemon.connect(arena_bytes=0, reconnect=0) as client:
                    session = open_session(client)
                    session.push(to_push(keys, contents)[:3])
                    client.flush()
                    flushed = 3
                    session.push(to_push(keys, contents)[3:])
                    client.drop(keys[:1])
                    gone = True
                    client.flush()
                    flushed = 5
                survived = True
            except kvtc.KvtcError:
                pass
        daemon.prefix = []
        if survived:
            os.kill(daemon.pid, signal.SIGKILL)
        assert daemon.process.wait(timeout=60) != 0
        daemon.start()
        with daemon.connect() as client:
            session = open_session(client)
            back = session.fetch(keys)
            for index, page in enumerate(back):
                assert page in (contents[index], None), f"write {number}: page {index} has wrong bytes"
                if index < flushed and index != 0:
                    assert page is not None, f"write {number}: page {index} was flushed and is lost"
            assert not (gone and flushed == 5) or back[0] is None
            # And it goes on working.
            assert session.push(to_push(keys, contents)) and session.fetch(keys) == contents
    assert number > 6


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_sync_that_fails_is_not_called_a_success(make_daemon, error):
    daemon = start(make_daemon, strace("fdatasync", f"error={error}", "1..2"))
    keys, contents = random_pages(6)
    with daemon.connect(arena_bytes=0) as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        with pytest.raises(kvtc.KvtcError) as failure:
            client.flush()
        assert failure.value.code == ErrorCode.IO_ERROR
        assert client.status()["state"] == "degraded"
        assert session.fetch(keys) == contents
        outcomes = []
        for _ in range(5):
            try:
                client.flush()
                outcomes.append("flushed")
                break
            except kvtc.KvtcError as again:
                assert again.code == ErrorCode.IO_ERROR
                outcomes.append("failed")
        assert outcomes[-1] == "flushed" and client.status()["state"] == "ready"
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait(timeout=60)
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


@needs_strace
def test_a_slow_disk_delays_only_who_needs_it(make_daemon):
    daemon = start(make_daemon, strace("pwrite64", "delay_enter=300000", "1+"))
    keys, contents = random_pages(8)
    with daemon.connect(arena_bytes=0) as writer, daemon.connect(arena_bytes=0) as reader:
        session = open_session(writer)
        session.push(to_push(keys, contents))
        flush = writer.connection.start(messages.Flush(wire.NONE32))
        flushed = threading.Event()
        flush.when_done(flushed.set)
        own = open_session(reader)
        for _ in range(3):
            assert own.fetch(keys) == contents
            reader.ping()
        # Eight pages take more than two seconds to write; what lies in RAM does not wait for that.
        assert not flushed.is_set()
        flush.reply(messages.FlushReply)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(24 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True, text=True)
    mounted = made.returncode == 0 and subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("no loop mounts here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_file_system(make_daemon, small_disk):
    daemon = make_daemon(**{"disk.directory": str(small_disk / "state"), "disk.budget": "12MiB", "disk.segment": "1MiB"})
    keys, contents = random_pages(200)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys[:20], contents))
        client.flush()
        filler = small_disk / "filler"
        with open(filler, "wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(1 << 16))
            except OSError:
                pass
        assert session.push(to_push(keys, contents)[20:]) == [PushOutcome.STORED] * 180
        with pytest.raises(kvtc.KvtcError) as failure:
            client.flush()
        assert failure.value.code == ErrorCode.IO_ERROR
        status = client.status()
        assert status["state"] == "degraded" and status["counters"]["dropped"] == 0
        # RAM only from now on: everything is there all the same.
        assert session.fetch(keys) == contents
        filler.unlink()
        client.flush()
        assert client.status()["state"] == "ready"
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait(timeout=60)
    daemon.start()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents
    # While it has its disk.
    assert daemon.stop() == 0


def test_out_of_descriptors(make_daemon):
    daemon = start(make_daemon, ["prlimit", "--nofile=40", "--"])
    keys, contents = random_pages(2)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        state = ProcessState(daemon)
        crowd = []
        for _ in range(60):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(1)
            try:
                connection.connect(daemon.socket)
            except OSError:
                break
            crowd.append(connection)
        assert session.fetch(keys) == contents
        for connection in crowd:
            connection.close()
        # The crowd is gone: new ones get in again.
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                with daemon.connect() as other:
                    assert open_session(other).fetch(keys) == contents
                    break
            except kvtc.KvtcError:
                pass
        else:
            pytest.fail("nobody gets in any more")
        assert session.fetch(keys) == contents
    assert state.pid == daemon.pid


def test_out_of_memory_for_arenas(make_daemon):
    """Address space for the RAM tier and little more: arenas are refused, the daemon goes on."""
    daemon = start(make_daemon, ["prlimit", f"--as={3 << 30}", "--"])
    keys, contents = random_pages(2)
    with daemon.connect(arena_bytes=0) as client, Raw(daemon.socket) as raw:
        session = open_session(client)
        session.push(to_push(keys, contents))
        codes = [raw.ask(messages.Arena(1 << 30))[0] for _ in range(8)]
        assert codes[-1] == ErrorCode.LIMIT_EXCEEDED
        assert session.fetch(keys) == contents
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


STEPS = ["connect", "hello", "arena", "session", "half a push", "push", "lookup", "half a pull", "pull", "flush"]

VICTIM = """
import os, signal, sys
import kvtc
from kvtc.protocol import messages
from kvtc.protocol import wire
from raw import Raw
from samples import *
path, step = sys.argv[1:]
def reached(name):
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
raw = Raw(path, hello=False)
reached("connect")
assert raw.ask(messages.Hello(client="victim"))[0] == 0
reached("hello")
assert raw.ask(messages.Arena(32 << 20))[0] == 0
reached("arena")
code, body = raw.ask(messages.OpenSession("victim", b"", GEOMETRY, page_tokens=TOKENS))
session = messages.OpenSessionReply.decode(body).session
reached("session")
keys, contents = random_pages(8, seed=11)
entries = [messages.PushEntry(k, i * TOKENS, TOKENS, i * len(contents[i]), len(contents[i])) for i, k in enumerate(keys)]
push = messages.Push(session, wire.NONE32, entries, b"".join(contents))
frame = wire.frame(push.OPCODE, 99, push.encode())
if step == "half a push":
    raw.send(frame[: len(frame) // 2])
reached("half a push")
raw.send(frame)
assert raw.read()[0] == 0
reached("push")
assert raw.ask(messages.Lookup(session, 600000, keys))[0] == 0
reached("lookup")
pull = messages.Pull(session, 0, wire.NONE32, 0, 0, 1, [messages.PullEntry(k, 0, 1 << 20) for k in keys])
raw.frame(pull.OPCODE, pull.encode())
if step == "half a pull":
    raw.socket.recv(100)
reached("half a pull")
while raw.read()[2].status & wire.MORE:
    pass
reached("pull")
assert raw.ask(messages.Flush(session))[0] == 0
reached("flush")
"""


def test_clients_that_die_at_any_step_leave_nothing_behind(make_daemon):
    # Quotas that hold one client's things only: what the dead held must come back.
    daemon = make_daemon(**{"limits.arena_per_user": "40MiB", "limits.sessions_per_user": 2, "limits.leases_per_user": 2})
    state = ProcessState(daemon)
    here = os.path.dirname(samples.__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    for step in STEPS:
        victim = subprocess.run([sys.executable, "-c", VICTIM, daemon.socket, step], env=environment, capture_output=True, text=True, timeout=60)
        assert victim.returncode == -signal.SIGKILL, f"{step}: {victim.stderr}"
        assert state.leaks() == [], step
    with daemon.connect(arena_bytes=40 << 20) as client:
        assert client.arena().length == 40 << 20
        sessions = [open_session(client) for _ in range(2)]
        keys, contents = random_pages(2)
        sessions[0].push(to_push(keys, contents))
        assert all(sessions[0].lookup(keys, lease_ms=1000).lease for _ in range(2))


def test_ten_thousand_connections_come_and_go(make_daemon):
    daemon = make_daemon()
    state = ProcessState(daemon)
    hello = wire.frame(wire.Opcode.HELLO, 1, messages.Hello(client="brief").encode())
    for number in range(10_000):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(daemon.socket)
            if number % 4 == 0:
                # It may be one too many at this moment.
                with contextlib.suppress(OSError):
                    connection.sendall(hello)
    assert state.leaks(memory_slack=32 << 20) == []
    with daemon.connect() as client:
        client.ping()
