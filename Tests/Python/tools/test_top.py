"""``kvtcctl top`` on a terminal that a program plays: what is on it, what is sent for that, and how it is left."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pyte
import pytest

from conftest import Daemon, binary
from samples import open_session, random_pages, to_push

LEAVE = b"\x1b[?7h\x1b[?25h\x1b[?1049l"
FIGURES = {
    "state", "ram_used", "ram_budget", "disk_used", "disk_budget", "ratio", "hit_ratio", "pushed_bytes_per_s", "pushed_pages_per_s",
    "returned_bytes_per_s", "hits_per_s", "misses_per_s", "encoded_per_s", "waiting", "to_encode", "to_decode", "sessions", "drifting",
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon():
    daemon = Daemon().start()
    yield daemon
    daemon.close()


@pytest.fixture(scope="module")
def sessions(daemon):
    """Three, of which the first has most tokens."""
    with daemon.connect(arena_bytes=0) as client:
        made = [open_session(client, f"chat {number}") for number in range(3)]
        for number, session in enumerate(made):
            keys, contents = random_pages(4 - number, seed=number + 1)
            session.push(to_push(keys, contents))
            session.fetch(keys)
        yield made


class Terminal:
    """A terminal, with kvtcctl on it."""

    def __init__(self, daemon, *arguments, columns=80, rows=24, **variables):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self.parent, self.child = pty.openpty()
        self.size(columns, rows)
        self.before = termios.tcgetattr(self.child)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "xterm", "KVTC_SOCKET": daemon.socket} | variables
        command = [binary("kvtcctl", "KVTCCTL"), "top", "--interval", "0.1", *arguments]
        self.process = subprocess.Popen(command, stdin=self.child, stdout=self.child, stderr=self.child, env=environment)

    def size(self, columns, rows):
        fcntl.ioctl(self.child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        self.size(columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    @property
    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self):
        return "\n".join(self.lines)

    def until(self, condition):
        """Takes what is drawn until the picture is as it should be; gives how many bytes that took."""
        start, end = len(self.seen), time.monotonic() + 60
        while not condition(self):
            readable, _, _ = select.select([self.parent], [], [], max(0, end - time.monotonic()))
            assert readable, f"it never comes to that:\n{self.text}"
            self.seen += (part := os.read(self.parent, 65536))
            self.stream.feed(part)
        return len(self.seen) - start

    def press(self, keys):
        os.write(self.parent, keys.encode())

    def end(self):
        """The status once it has ended, all of its output taken."""
        while self.process.poll() is None or select.select([self.parent], [], [], 0)[0]:
            if select.select([self.parent], [], [], 0.05)[0]:
                self.seen += os.read(self.parent, 65536)
        return self.process.returncode

    def is_restored(self):
        return self.seen.endswith(LEAVE) and termios.tcgetattr(self.child) == self.before

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.parent)
        os.close(self.child)


@pytest.fixture
def top(daemon, sessions):
    made = []

    def start(*arguments, **options):
        made.append(Terminal(daemon, *arguments, **options))
        return made[-1]

    yield start
    for terminal in made:
        terminal.close()


def is_drawn(terminal):
    return "chat 2" in terminal.text


def names(terminal):
    return [line.split()[2] for line in terminal.lines if "chat" in line]


def test_it_shows_what_there_is_and_hears_keys(top):
    terminal = top()
    terminal.until(is_drawn)
    text = terminal.text
    for expected in ("kvtcd 0.1.0", "ready", "RAM", "disk", "100.0 %", "LATENCY", "SESSION", "q quit"):
        assert expected in text, text
    # By tokens: the first has most.
    terminal.press("s")
    terminal.until(lambda one: "sort by raw" in one.text and names(one) == ["0", "1", "2"])
    terminal.press("p")
    terminal.until(lambda one: "paused" in one.text)
    terminal.press(" ")
    terminal.until(lambda one: "paused" not in one.text)
    terminal.press("q")
    assert terminal.end() == 0 and terminal.is_restored()


def test_only_what_changes_is_sent(top):
    terminal = top()
    whole = terminal.until(is_drawn)
    line = terminal.lines[0]
    # Seconds of its life.
    more = terminal.until(lambda one: one.lines[0] != line)
    assert terminal.seen.count(b"\x1b[2J") == 2 and more < whole / 2, (whole, more)


@pytest.mark.parametrize("columns, rows", [(132, 50), (40, 12), (20, 5), (3, 2), (1, 1)])
def test_it_follows_the_size_of_the_terminal(top, columns, rows):
    terminal = top()
    terminal.until(is_drawn)
    terminal.resize(columns, rows)
    wanted = "kvtcd 0.1.0"[: min(columns, 11) - 1]
    terminal.until(lambda one: one.lines[0].startswith(wanted) and len(one.lines) == rows)
    terminal.resize(80, 24)
    terminal.until(is_drawn)
    terminal.press("q")
    assert terminal.end() == 0 and terminal.is_restored()


def test_more_sessions_than_there_is_room_for_are_counted(top):
    terminal = top(rows=18)
    terminal.until(lambda one: "more session" in one.text)
    assert len(names(terminal)) + int(terminal.text.split(" more session")[0].split()[-1]) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_the_terminal_as_it_was(top, number):
    terminal = top()
    terminal.until(is_drawn)
    terminal.process.send_signal(number)
    assert terminal.end() == 128 + number and terminal.is_restored()


def test_so_does_a_fault(top):
    terminal = top()
    terminal.until(is_drawn)
    terminal.process.send_signal(signal.SIGSEGV)
    assert terminal.end() == -signal.SIGSEGV and terminal.is_restored()


def test_it_gives_the_terminal_back_while_it_is_suspended(top):
    terminal = top()
    terminal.until(is_drawn)
    terminal.process.send_signal(signal.SIGTSTP)
    os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOWAIT)
    terminal.until(lambda one: one.seen.endswith(LEAVE))
    assert termios.tcgetattr(terminal.child) == terminal.before
    terminal.process.send_signal(signal.SIGCONT)
    terminal.until(lambda one: one.seen.count(b"\x1b[?1049h") == 2 and one.text.count("SESSION") == 1)
    terminal.press("q")
    assert terminal.end() == 0 and terminal.is_restored()


def test_a_daemon_that_hangs_holds_no_key_up(daemon, top):
    terminal = top()
    terminal.until(is_drawn)
    with daemon.stopped():
        terminal.press("p")
        terminal.until(lambda one: "paused" in one.text)
        terminal.press("q")
        assert terminal.end() == 0 and terminal.is_restored()


def test_without_colours_or_unicode(top):
    terminal = top(NO_COLOR="1", LC_ALL="C")
    terminal.until(is_drawn)
    assert b"\x1b[1m" not in terminal.seen and terminal.seen.isascii() and "#" in terminal.text
    terminal = top()
    terminal.until(is_drawn)
    assert b"\x1b[1m" in terminal.seen and "█" in terminal.text


def figures(daemon, *arguments, lines, **variables):
    """The first lines where there is no terminal."""
    environment = os.environ | {"KVTC_SOCKET": daemon.socket} | variables
    command = [binary("kvtcctl", "KVTCCTL"), "top", "--interval", "0.1", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        read = [process.stdout.readline() for _ in range(lines)]
        process.terminate()
    return read


def test_where_there_is_no_terminal_figures_come_line_by_line(daemon, sessions, top):
    titles, *rows = figures(daemon, lines=4)
    assert titles.split() == ["RAM", "disk", "hits", "push", "pull", "coded/s", "queue", "waiting", "sessions", "state"]
    assert all(row.split()[-1] == "ready" and "\x1b" not in row for row in rows)
    for terminal in (top(TERM="dumb"), top(TERM="")):
        terminal.until(lambda one: one.seen.count(b"ready") >= 2)
        assert b"\x1b" not in terminal.seen


def test_as_json_there_is_an_object_a_line(daemon, sessions):
    first, second, *_ = [json.loads(line) for line in figures(daemon, "--json", lines=3)]
    assert set(first) == set(second) == FIGURES
    assert first["hits_per_s"] is None and second["hits_per_s"] == 0 and second["hit_ratio"] is None
    assert first["sessions"] == 3 and first["state"] == "ready"


# The last one, as sessions end with it.
def test_it_goes_on_when_the_daemon_comes_back(daemon, top):
    terminal = top()
    terminal.until(is_drawn)
    daemon.stop()
    terminal.until(lambda one: "gone: no kvtcd answers" in one.text)
    assert "RAM" in terminal.text
    daemon.start()
    terminal.until(lambda one: "ready" in one.lines[0] and "no sessions" in one.text)
    terminal.press("q")
    assert terminal.end() == 0 and terminal.is_restored()
