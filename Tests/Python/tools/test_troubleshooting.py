"""Every line of the troubleshooting page is provoked once, and the page and the code know the same ones."""

import contextlib
import os
import re
import resource
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

import kvtc
from kvtc import ErrorCode
from kvtc.adapters import prompts
from kvtc.protocol import errors, messages, wire
from kvtc.transport.deadline import Breaker

from configured import kvtcd
from conftest import ROOT, Daemon, binary
from fake_worker import FakeWorker
from raw import Raw
from samples import TOKENS, open_session, random_pages, to_push, until
from scripted import ScriptedDaemon

PAGE = ROOT / "Sources/KVTCDaemon/KVTCDaemon.docc/Troubleshooting.md"


def rows(heading):
    """The tables below a heading: the cells of each line, without marks."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)[1]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def names(heading, cell=0):
    return [row[cell].strip("`") for row in rows(heading)]


@pytest.fixture(scope="module")
def daemon():
    """In RAM only, with little room, and a socket on which nobody is an administrator."""
    daemon = Daemon()
    daemon.settings |= {"disk.budget": "0", "ram.budget": "2MiB", "containers.c": str(daemon.directory / "c")}
    yield daemon.start()
    daemon.close()


@pytest.fixture
def client(daemon):
    with daemon.connect(arena_bytes=0) as client:
        yield client


def code_of(call, *arguments, **options):
    with pytest.raises(kvtc.KvtcError) as caught:
        call(*arguments, **options)
    return caught.value.code


# The daemon's errors


def frame(daemon, *, hello=True, opcode=wire.Opcode.PING, body=b"", **header):
    with Raw(daemon.socket, hello=hello) as raw:
        raw.frame(opcode, body, **header)
        return raw.read()[0]


def push_raw(daemon, *entries):
    """The code of a push of 4 bytes a token, without the library's own care."""
    with Raw(daemon.socket) as raw:
        geometry = kvtc.Geometry([kvtc.Tensor(0, kvtc.Role.KEY, kvtc.RotaryStyle.NONE, 1, 2)])
        session = messages.OpenSessionReply.decode(raw.ask(messages.OpenSession("raw", b"", geometry, page_tokens=16))[1]).session
        return raw.ask(messages.Push(session, wire.NONE32, [messages.PushEntry(*entry) for entry in entries], bytes(64)))[0]


def of_another_shape(daemon):
    with daemon.connect(arena_bytes=0) as client:
        keys, contents = random_pages(1)
        session = open_session(client, policy=kvtc.Policy(mode=kvtc.Mode.LOSSLESS, sink=0, window=0))
        session.push(to_push(keys, contents))
        until(lambda: session.lookup(keys).residence == [kvtc.Residence.CODED])
        (part,) = session.pull_blocks(keys)
        block = bytes(part.data)
        other = open_session(client, geometry=kvtc.Geometry.from_heads(layers=2, kv_heads=4, head_dim=16))
        return code_of(other.push_blocks, [kvtc.Block(keys[0], 0, TOKENS, block)])


def in_a_container(daemon):
    with kvtc.connect(daemon.settings["containers.c"], arena_bytes=0) as client:
        return code_of(client.verify)


def while_it_stops(_):
    """One client owes the daemon nothing and is owed much, so that the daemon waits for it."""
    daemon = Daemon().start()
    try:
        with Raw(daemon.socket) as owed, Raw(daemon.socket) as other:
            for _ in range(32):
                owed.frame(wire.Opcode.PING, messages.Ping(bytes(1 << 18)).encode())
            os.kill(daemon.pid, signal.SIGTERM)
            while (code := other.ask(messages.GetPolicy(1))[0]) == ErrorCode.UNKNOWN_SESSION:
                pass
            return code
    finally:
        daemon.close()


def silent(_):
    """A daemon of its own: none but this client is to have so little time."""
    daemon = Daemon(**{"limits.hello_s": 1}).start()
    try:
        with Raw(daemon.socket, hello=False) as raw:
            return raw.read()[0]
    finally:
        daemon.close()


def a_defect(_):
    """There is none to be had: what a client makes of it."""
    with scripted(lambda server, *request: server.error(*request, ErrorCode.INTERNAL_ERROR)) as server:
        with kvtc.connect(server.path, arena_bytes=0) as client:
            with pytest.raises(kvtc.KvtcError, match="journalctl") as caught:
                client.status()
            return caught.value.code


class scripted:
    """A server that answers STATUS in a way of its own."""

    def __init__(self, answer):
        self.answer = answer

    def __enter__(self):
        self.daemon = Daemon()
        self.server = ScriptedDaemon(self.daemon.socket)
        self.server.override[wire.Opcode.STATUS] = self.answer
        return self.server

    def __exit__(self, *_):
        self.server.close()
        self.daemon.close()


def refused(call):
    """The code of what a client of the shared daemon asks for."""

    def run(daemon):
        with daemon.connect(arena_bytes=0) as client:
            return code_of(call, client)

    return run


ERRORS = {
    "badMagic": lambda daemon: frame(daemon, magic=0x12345678),
    "badVersion": lambda daemon: frame(daemon, version=9),
    "unknownOpcode": lambda daemon: frame(daemon, opcode=999),
    "tooLarge": lambda daemon: frame(daemon, length=wire.MAX_BODY + 1),
    "truncated": lambda daemon: frame(daemon, opcode=wire.Opcode.GET_POLICY),
    "trailingBytes": lambda daemon: frame(daemon, opcode=wire.Opcode.STATUS, body=b"x"),
    "invalidField": refused(lambda client: open_session(client, "x" * 300)),
    "helloRequired": lambda daemon: frame(daemon, hello=False, body=messages.Ping().encode()),
    "unknownSession": refused(lambda client: client._call(messages.GetPolicy(99), messages.GetPolicyReply)),
    "unknownProfile": refused(lambda client: client.open_session("x", profile=bytes(32))),
    "geometryMismatch": of_another_shape,
    "unknownArena": refused(lambda client: client._call(messages.StoreProfile(77, 0, 1, "x.safetensors"), messages.JsonReply)),
    "arenaBounds": lambda daemon: push_raw(daemon, (bytes(32), 0, 1, 64, 4)),
    "limitExceeded": refused(lambda client: client._call(messages.Arena(1 << 50), messages.ArenaReply)),
    "positionConflict": lambda daemon: push_raw(daemon, (bytes(32), 0, 2, 0, 8), (bytes([1] * 32), 1, 2, 8, 8)),
    "forbidden": in_a_container,
    "ioError": refused(lambda client: client.flush()),
    "shuttingDown": while_it_stops,
    "internalError": a_defect,
    "timeout": silent,
}


def test_every_error_has_its_line():
    assert names("Errors of the daemon") == [code.label for code in ErrorCode]
    # What no daemon of today says any more.
    assert set(ERRORS) == {code.label for code in ErrorCode} - {"unknownLease"}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_the_daemon(daemon, name):
    assert ErrorCode(ERRORS[name](daemon)).label == name


def test_a_lease_that_has_ended_is_no_error(daemon):
    with Raw(daemon.socket) as raw:
        assert raw.ask(messages.Release(4711))[0] == 0


# Outcomes


def test_every_outcome_has_its_line():
    pulls = {outcome.name.lower() for outcome in kvtc.PullOutcome} - {"hit", "miss", "busy"} | {"absent"}
    pushes = {outcome.name.lower() for outcome in kvtc.PushOutcome} - {"stored"}
    assert set(names("Misses")) == pulls | pushes


def test_outcomes_of_pulls(client):
    keys, contents = random_pages(1)
    session = open_session(client)
    session.push(to_push(keys, contents))
    assert [part.outcome for part in session.pull([bytes(32)])] == [kvtc.PullOutcome.MISS]
    assert [part.outcome for part in open_session(client, page_tokens=16).pull(keys)] == [kvtc.PullOutcome.NO_SPACE]
    client.drop()


def test_outcomes_of_pushes(client):
    keys, contents = random_pages(2)
    policy = kvtc.Policy()
    policy.pin = True
    session = open_session(client, policy=policy)
    outcomes = session.push(to_push(keys, contents)) + session.push(to_push(keys, contents))
    assert outcomes == [kvtc.PushOutcome.STORED] * 2 + [kvtc.PushOutcome.PRESENT] * 2
    nan = np.frombuffer(contents[0], np.float16).copy()
    nan[0] = np.nan
    assert open_session(client).push([kvtc.Page(bytes(32), 0, nan.tobytes())]) == [kvtc.PushOutcome.NON_FINITE]
    many, pages = random_pages(200, seed=5)
    assert kvtc.PushOutcome.FULL in session.push(to_push(many, pages))
    client.drop()


def test_a_page_that_is_no_more_what_it_was(daemon, client):
    keys, contents = random_pages(1, seed=9)
    session = open_session(client)
    session.push(to_push(keys, contents))
    for number in os.listdir(f"/proc/{daemon.pid}/fd"):
        place = f"/proc/{daemon.pid}/fd/{number}"
        if "kvtc-pages" not in os.readlink(place):
            continue
        with open(place, "r+b") as memory:
            at = memory.read().find(contents[0][:64])
            if at >= 0:
                memory.seek(at)
                memory.write(b"\xff" * 64)
    assert [part.outcome for part in session.pull(keys)] == [kvtc.PullOutcome.CORRUPT]


def test_a_page_that_is_too_large_is_refused_before_there_is_one(client):
    geometry = kvtc.Geometry.from_heads(layers=1, kv_heads=16, head_dim=128)
    with pytest.raises(kvtc.KvtcError, match="ram.budget") as caught:
        open_session(client, geometry=geometry, page_tokens=1024)
    assert (caught.value.code, caught.value.field) == (ErrorCode.LIMIT_EXCEEDED, "pageTokens")


# The Python client's errors


def breaker_that_is_open():
    breaker = Breaker()

    for _ in range(2):
        with contextlib.suppress(errors.Unreachable), breaker.guard(1, lambda: None):
            raise errors.Unreachable("away")


def unanswered():
    with scripted(lambda *_: None) as server:
        with kvtc.connect(server.path, arena_bytes=0, timeout=0.2, reconnect=0) as client:
            client.status()


def cut():
    with scripted(lambda server, connection, *_: connection.close()) as server:
        with kvtc.connect(server.path, arena_bytes=0, reconnect=0) as client:
            client.status()


def cache_of_other_tokens():
    worker = FakeWorker()
    prompts._fitting(SimpleNamespace(identity=worker.identity.digest), worker, [1, 2, 3])


CLIENT_ERRORS = {
    "Unreachable": lambda: kvtc.connect("/nonexistent/s", reconnect=0),
    "ConnectionLost": cut,
    "RequestTimedOut": unanswered,
    "Unavailable": breaker_that_is_open,
    "WireError": lambda: messages.GetPolicyReply.decode(b"x"),
    "CacheMismatch": cache_of_other_tokens,
}


def test_every_exception_has_its_line():
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.KvtcError)}
    assert names("Errors of the Python client") == list(CLIENT_ERRORS) and known == {"KvtcError", *CLIENT_ERRORS}


@pytest.mark.parametrize("name", CLIENT_ERRORS)
def test_errors_of_the_client(name):
    with pytest.raises(kvtc.KvtcError) as caught:
        CLIENT_ERRORS[name]()
    assert type(caught.value).__name__ == name and str(caught.value)


# kvtcctl


def kvtcctl(*arguments):
    command = [binary("kvtcctl", "KVTCCTL"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).returncode


STATUSES = {
    "0": lambda daemon: ["ping", "--count", 1, "--socket", daemon.socket],
    "1": lambda daemon: ["flush", "--socket", daemon.socket],
    "64": lambda daemon: ["ping", "--count", "none"],
    "69": lambda daemon: ["ping", "--socket", daemon.socket + "-none"],
    "75": lambda daemon: ["ping", "--timeout", 1, "--socket", daemon.socket],
}


def test_every_status_has_its_line_here_in_help_and_in_the_manual():
    assert names("Exit statuses of kvtcctl") == list(STATUSES)
    usage = subprocess.run([binary("kvtcctl", "KVTCCTL"), "--help"], capture_output=True, text=True, timeout=60).stdout
    assert re.findall(r"^  (\d+)  ", usage, re.M) == list(STATUSES)
    manual = (ROOT / "deploy/man/kvtcctl.1").read_text().split(".SH EXIT STATUS")[1].split(".SH ")[0]
    assert re.findall(r"^\.B (\d+)$", manual, re.M) == list(STATUSES)


@pytest.mark.parametrize("status", STATUSES)
def test_exit_statuses(daemon, status):
    with daemon.stopped() if status == "75" else contextlib.nullcontext():
        assert kvtcctl(*STATUSES[status](daemon)) == int(status)


# kvtcd


def test_a_daemon_that_does_not_start(daemon, tmp_path):
    lines = [(row[0].strip("`"), row[1].strip("`")) for row in rows("kvtcd does not start")]
    second = Daemon()
    try:
        second.start()
        place = ["--directory", second.settings["disk.directory"]]
        bad = tmp_path / "bad.toml"
        bad.write_text("ram.budget = true\n")
        runs = [
            [*place, "--socket", tmp_path / "s"],
            ["--directory", "", "--socket", daemon.socket],
            ["--ram-budget", "much"],
            ["--config", bad],
        ]
        assert len(runs) == len(lines)
        for (status, text), arguments in zip(lines, runs):
            ended, _, complaints = kvtcd(*arguments)
            assert (ended, text in complaints) == (int(status), True), complaints
    finally:
        second.close()


CONFIGURATIONS = {
    "cannot be read": None,
    "is not UTF-8": b"log.level = \"\xfc\"",
    "expected": b"ram = ",
    "unknown key": b"ram.budgt = 1",
    "out of range": b"ram.budget = 1",
    "there is no unit": b'ram.budget = "1GB"',
    "more than the": b'ram.budget = "100TiB"',
    "there is no user": b'admin.users = ["no such user"]',
    "is not writable": b'disk.directory = "/proc/1"',
    "something that is no socket is there": b'socket.path = "/etc/passwd"',
    "RLIMIT_FSIZE": b"",
}


def test_every_mistake_has_its_line():
    assert names("Mistakes in the configuration") == list(CONFIGURATIONS)


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_mistakes_in_the_configuration(place, tmp_path, text):
    file = tmp_path / "c.toml"
    if (content := CONFIGURATIONS[text]) is not None:
        file.write_bytes(content + b"\n")
    # What the file says of a place is not to be said otherwise by an option.
    options = [] if content and b"/" in content else place
    limit = (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    shrink = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)} if text == "RLIMIT_FSIZE" else {}
    status, _, complaints = kvtcd("--config", file, "--check-config", *options, environment={"HOME": str(tmp_path)}, **shrink)
    assert status == 78 and text in complaints, complaints
