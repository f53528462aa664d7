"""What kvtcd says about its configuration: file, options, environment, the limits it runs under, and directories."""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

import kvtc
from kvtc.transport.connection import DEFAULT_SOCKET, default_socket

from configured import check, kvtcd, report
from conftest import ROOT, await_end, binary
from users import NOBODY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def as_nobody():
    """Starts a copy of kvtcd as nobody, in a directory that nobody may enter; a directory of nobody's own is in it."""
    with tempfile.TemporaryDirectory(prefix="kvtcd-") as directory:
        os.chmod(directory, 0o755)
        program = shutil.copy(binary("kvtcd", "KVTCD"), directory)
        home = Path(directory, "home")
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        keep = {key: os.environ[key] for key in ["PATH", "LD_LIBRARY_PATH"] if key in os.environ}

        def start(*arguments, environment):
            return subprocess.Popen(
                [program, *map(str, arguments)],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                env=keep | environment,
                cwd="/",
                stderr=subprocess.PIPE,
                text=True,
            )

        yield start, home


def test_all_mistakes_are_told_at_once(tmp_path, place):
    text = """
[ram]
budget = "16GB"
budgt = 1
[disk]
"directory.x" = "/x"
budget = "1024TiB"
segment = { a = 1 }
[profiles]
directory = "/nonexistent/profiles"
[log]
level = 5
"""
    status, complaints = check(tmp_path / "c", text, *place)
    assert status == 78
    assert [line.split(": ")[1:3] for line in complaints] == [
        ["f:3:1", 'ram.budget = "16GB"'],
        ["f:4:1", "ram.budgt = 1"],
        ["f:6:1", '"directory.x" = "/x"'],
        ["f:7:1", 'disk.budget = "1024TiB"'],
        ["f:8:1", "disk.segment = { a = 1 }"],
        ["f:10:1", 'profiles.directory = "/nonexistent/profiles"'],
        ["f:12:1", "log.level = 5"],
    ]
    # The daemon itself says the same when it is to start.
    file = tmp_path / "c"
    status, _, started = kvtcd("--config", file, *place)
    assert status == 78 and started.replace(str(file), "f").splitlines() == complaints
    # A journal is told that it is severe.
    _, _, journal = kvtcd("--config", file, *place, environment={"JOURNAL_STREAM": "1:1"})
    assert journal.splitlines() == ["<2>" + line for line in started.splitlines()]
    assert not (tmp_path / "state").exists(), "what cannot serve leaves nothing behind"


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('directory = "/srv/\xfcbung"\n'.encode("latin-1"), "f:1:19: the byte 0xFC is not UTF-8"),
        (b'[ram]\nbudget = "1GiB"\0\nnonsense\n', "f:2:16: the control character U+0000"),
        (b"[ram]\r\nbudget = 1\r\n[log]\r\nlevel = 1\r\n", "f:2:1: ram.budget = 1: out of range"),
        (b"a = [ }", "f:1:7: expected a value"),
        (b"[.]", "f:1:2: expected a key"),
        (b'disk.directory = "a\\u0000b"', "f:1:1: disk.directory"),
        (b"a." * 200_000 + b"a = 1", "f:1:34: expected at most 16 parts"),
        (b"#" * (1 << 20) + b"\n", "f: cannot be read: it is larger than 1MiB"),
    ],
    ids=["Latin-1", "NUL", "CRLF", "a brace in a list", "a point as a table", "escaped NUL", "deep", "huge"],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path, place, text, complaint):
    status, complaints = check(tmp_path / "c", text, *place)
    assert status == 78 and complaints[0].startswith("kvtcd: " + complaint), complaints


def test_a_file_that_is_none_is_told_with_the_reason(tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    reasons = {
        tmp_path / "missing": "No such file or directory",
        tmp_path: "it is a directory",
        tmp_path / "pipe": "it is no regular file",
        Path("/dev/zero"): "it is no regular file",
        tmp_path / "loop": "Too many levels of symbolic links",
    }
    for file, reason in reasons.items():
        assert kvtcd("--config", file, *place) == (78, "", f"kvtcd: {file}: cannot be read: {reason}\n")
    (tmp_path / "empty").touch()
    assert kvtcd("--check-config", "--config", tmp_path / "empty", *place)[0] == 0


@needs_root
def test_a_file_of_others_is_told_with_the_reason(as_nobody):
    start, home = as_nobody
    (home / "c").touch(0o600)
    _, complaints = start("--config", home / "c", environment={"HOME": str(home)}).communicate(timeout=60)
    assert complaints == f"kvtcd: {home}/c: cannot be read: Permission denied\n"


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--socket", ""], '--socket "": is empty'),
        (["--socket", "x" * 108], "108 bytes are more than the 107"),
        (["--socket", "--json"], "--socket --json: looks like an option"),
        (["--ram-budget", "-1"], "--ram-budget -1: does not begin with digits 0 to 9; expected bytes"),
        (["--ram-budget", "16GB"], "--ram-budget 16GB: there is no unit GB; expected bytes"),
        (["--ram-budget", "1000TiB"], "--ram-budget 1000TiB: more than the "),
        (["--disk-budget", "50%"], "--disk-budget 50%: there is no unit %"),
        (["--directory", "/proc/none"], "--directory /proc/none: cannot make /proc/none"),
        (["--profiles", "/nonexistent"], "--profiles /nonexistent: No such file or directory"),
        (["--log-level", "foo"], "--log-level foo: unknown; expected one of trace, debug"),
        (["--config", ""], "--config needs the path of a file"),
        (["--fsck", ""], "--fsck needs the directory"),
        (["--fsck", "/", "--check-config"], "separate checks"),
        (["--json"], "--json goes with --fsck DIRECTORY or --check-config"),
        (["--socket"], "Missing value for '--socket"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_options_are_wrong_usage(tmp_path, arguments, complaint):
    defaults = ["--socket", tmp_path / "s", "--directory", tmp_path / "state"]
    for mode in [[], ["--check-config"]]:
        status, output, complaints = kvtcd(*mode, *defaults, *arguments)
        if mode and arguments == ["--json"]:
            continue
        assert status == 64 and complaint in complaints and output == "", complaints


def test_options_and_file_are_told_together(tmp_path, place):
    status, complaints = check(tmp_path / "c", "rom = 1\n", *place, "--ram-budget", "-1", "--log-level", "foo")
    assert [line.split(": ")[1] for line in complaints] == ["f:1:1", "--ram-budget -1", "--log-level foo"]
    assert status == 64
    status, output, complaints = kvtcd("--check-config", "--json", *place, "--config", tmp_path / "c")
    found = json.loads(output)
    assert status == 78 and not found["good"] and complaints == ""
    assert [error["key"] for error in found["errors"]] == ["rom"] and found["errors"][0]["source"] == "file"


def test_a_check_shows_every_value_with_where_it_comes_from(tmp_path, place):
    file = tmp_path / "c"
    file.write_text('[ram]\nbudget = "64MiB"\n\n[tenants]\n"a b" = [1000, "root"]\n')
    status, text, _ = kvtcd("--check-config", "--config", file, "--log-level", "debug", *place)
    assert status == 0
    lines = {line.split(" = ")[0]: line for line in text.splitlines()}
    assert lines["ram.budget"].split("  # ") == ['ram.budget = "64MiB"'.ljust(lines["ram.budget"].index("  # ")), f"{file}:2"]
    settings = report("--config", file, "--log-level", "debug", *place)
    assert settings["ram.budget"] == {"key": "ram.budget", "value": 64 << 20, "source": "file", "place": f"{file}:2"}
    assert settings["log.level"] == {"key": "log.level", "value": "debug", "source": "option", "place": "--log-level"}
    assert settings["limits.keys"] == {"key": "limits.keys", "value": 1 << 20, "source": "default", "place": "default"}
    assert settings["tenants.a b"]["value"] == [1000, "root"]
    assert list(settings) == [key.replace('"', "") for key in lines if not key.startswith("#")]
    # Every key of the shipped file is among them, and what is printed is a file that says the same.
    shipped = report("--config", ROOT / "Config" / "kvtcd.toml", *place)
    assert set(shipped) == set(settings) - {"tenants.a b"}
    (tmp_path / "again").write_text(text)
    again = report("--config", tmp_path / "again")
    assert {key: setting["value"] for key, setting in again.items()} == {
        key: setting["value"] for key, setting in settings.items()
    }
    assert not (tmp_path / "state").exists() and not (tmp_path / "s").exists(), "a check leaves nothing behind"


def test_what_is_probably_not_meant_is_warned_of(tmp_path, place, make_daemon):
    text = '[ram]\nbudget = "64MiB"\n[disk]\nbudget = "32MiB"\n[limits]\nconnections = 5\nconnections_per_user = 9\n'
    status, complaints = check(tmp_path / "c", text, *place)
    assert status == 0 and [line.split(": ")[1:3] for line in complaints] == [
        ["warning", "f:4:1"],
        ["warning", "f:7:1"],
    ]
    assert "raise disk.budget above ram.budget (64MiB)" in complaints[0]
    log = make_daemon(**{"disk.budget": "32MiB"}).logged("raise disk.budget above ram.budget (64MiB)")
    assert "level=warning" in log


@needs_root
@pytest.mark.parametrize("options, reason", [("nr_inodes=1", "No space left on device"), ("ro", "Read-only file system")])
def test_a_file_system_that_takes_nothing_now_is_warned_of(place, tmp_path, options, reason):
    """It may do so later: the daemon can serve from RAM until then."""
    (tmp_path / "state").mkdir()
    mount = f'mount -t tmpfs -o size=64m,{options} none {tmp_path}/state && exec "$0" "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount]
    if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no namespace of mounts may be made")
    status, _, complaints = kvtcd("--check-config", *place, "--ram-budget", "16MiB", prefix=prefix)
    assert status == 0 and f"warning: --directory {tmp_path}/state" in complaints and reason in complaints, complaints


def test_defaults_have_room_for_what_ram_holds(tmp_path):
    settings = report("--socket", tmp_path / "s", "--directory", tmp_path / "state")
    room = os.statvfs(tmp_path)
    half = room.f_blocks * room.f_frsize // 2
    assert settings["disk.budget"]["value"] == min(half, max(10 << 30, settings["ram.budget"]["value"] * 5 // 4))


# Limits of the process


@needs_root
def test_without_a_runtime_directory_the_socket_is_below_home(as_nobody, monkeypatch):
    """As nobody in an empty home: parents are made, for the user only, and the daemon serves there."""
    start, home = as_nobody
    process = start("--ram-budget", "16MiB", environment={"HOME": str(home)})
    try:
        for line in process.stderr:
            if "msg=serving" in line:
                break
        socket = str(home / ".cache/kvtcd/kvtcd.sock")
        with kvtc.connect(socket) as client:
            assert client.status()["tiers"]["ram"]["budget"] == 16 << 20
        # Clients that are told nothing look there as well, when the system has no daemon.
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.delenv("KVTC_SOCKET", raising=False)
        if not os.path.exists(DEFAULT_SOCKET):
            assert default_socket() == socket
            assert subprocess.run([binary("kvtcctl", "KVTCCTL"), "ping"], stdout=subprocess.DEVNULL, timeout=60).returncode == 0
        for made in [".cache", ".cache/kvtcd", ".local", ".local/state", ".local/state/kvtcd"]:
            assert stat.S_IMODE((home / made).stat().st_mode) == 0o700, made
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.close()
        assert await_end(process, 60) == 0


@needs_root
@pytest.mark.parametrize(
    "environment, complaint",
    [
        ({"HOME": "/nonexistent/h"}, "(default, from HOME): /nonexistent does not exist; make it, or choose another path"),
        ({"HOME": "/"}, "(default, from HOME): /.cache does not exist"),
        ({"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/4000000"}, "(default, from XDG_RUNTIME_DIR): /run/user"),
        ({"HOME": "relative"}, "(default, from the user's entry): "),
    ],
)
def test_without_a_place_for_the_socket_it_says_what_to_do(as_nobody, environment, complaint):
    process = as_nobody[0]("--directory", "", environment=environment)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 78 and complaint in complaints and "--socket" in complaints, complaints


@pytest.mark.parametrize(
    "key, path, complaint",
    [
        ("profiles.directory", "{0}/none", "No such file or directory; make it readable, or leave the key out"),
        ("profiles.directory", "{0}/file", "is not a directory"),
        ("profiles.directory", "~/profiles", "~ is not expanded here"),
        ("disk.directory", "{0}/file", "is not writable: Not a directory"),
        ("disk.directory", "/proc/none", "cannot make /proc/none"),
        ("socket.path", "{0}/none/none/s", "/none does not exist"),
        ("socket.path", "{0}", "something that is no socket is there"),
        ("socket.path", "{0}/file", "something that is no socket is there"),
        ("socket.path", "{0}/file/s", "/file: Not a directory"),
        ("socket.path", "/proc/s", "a socket cannot be made in /proc"),
        ("socket.path", "/proc/none/s", "a socket cannot be made in /proc/none"),
        ("socket.path", "{0}/", "names a directory"),
        ("socket.path", "{0}/.", "names a directory"),
        ("socket.path", "{0}/link", "something that is no socket is there"),
        ("containers.a", "/proc/s", "a socket cannot be made in /proc"),
        ("containers.a", "{0}/none/none/s", "/none does not exist; make it, or choose another path"),
        ("containers.a", "{0}/file", "something that is no socket is there"),
    ],
)
def test_places_that_cannot_be_used_are_told(tmp_path, key, path, complaint):
    settings = {"socket.path": "{0}/s", "disk.directory": "{0}/state", "disk.budget": "1MiB", "ram.budget": "1MiB"} | {key: path}
    text = "".join(f'{key} = "{value.format(tmp_path)}"\n' for key, value in settings.items())
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "none")
    status, complaints = check(tmp_path / "c", text)
    assert kvtcd("--config", tmp_path / "c")[0] == 78, "a check and a start agree"
    line = list(settings).index(key) + 1
    assert status == 78 and len(complaints) == 1, complaints
    assert complaints[0].startswith(f"kvtcd: f:{line}:1: {key} = "), complaints
    assert complaint in complaints[0]


def test_without_profiles_the_default_directory_may_be_missing(make_daemon):
    daemon = make_daemon()
    with daemon.connect() as client:
        assert client.profiles() == []
    assert "profiles" not in daemon.log.read_text()


# A check of a directory


def test_only_the_directory_of_a_disk_tier_is_checked(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "segment-1.txt").touch()
    reasons = {
        "none": "No such file or directory",
        "file": "Not a directory",
        "empty": "is not the directory of a disk tier",
        "other": "is not the directory of a disk tier",
    }
    for name, reason in reasons.items():
        status, output, complaints = kvtcd("--fsck", tmp_path / name)
        assert status == 8 and output == "" and reason in complaints and str(tmp_path / name) in complaints
        status, output, _ = kvtcd("--fsck", tmp_path / name, "--json")
        assert status == 8 and reason in json.loads(output)["error"]


def test_a_tier_without_pages_is_good(make_daemon):
    daemon = make_daemon()
    assert daemon.stop() == 0
    status, output, _ = kvtcd("--fsck", daemon.settings["disk.directory"])
    assert status == 0 and "0 damaged" in output


# TOML

DOCUMENTS = [
    "a.b = { d = [1, { e = 'f' }], g = \"\"\"h\"\"\" } # i\n[[j]]\nk = 1979-05-27T07:32:00Z\n[[j]]\nl = 0x1F\n",
    '[a]\nb.c = 1\n[a.d]\ne = "\\u00fc"\n[f]\ng = [\n1,\n2, # c\n]\n[h.i]\n[h]\n',
    "x = 1.5e3\ny = -0\nz = [[], [{}]]\n\"q.r\" = '''\ns'''\n[t.\"u v\".w]\n",
    "a = 07:32:00\nb = 1979-05-27 07:32:00.5+01:00\nc = inf\nd = -nan\ne = true\nf = +1_000\ng = 0b1_0\n",
    "fruit.apple.color = 1\nfruit.apple.taste.sweet = true\n[fruit.orange]\n[veg]\na = {b.c=1,b.d=2}\n",
]


def test_texts_are_toml_exactly_where_another_reader_takes_them(tmp_path):
    tomllib = pytest.importorskip("tomllib")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(60):
        text = list(draw.choice(DOCUMENTS))
        for _ in range(draw.randrange(4)):
            at = draw.randrange(len(text))
            text[at : at + draw.randrange(2)] = draw.choice(["", *"\"'[]{}=.,#\n\t\\ u0_-+:aeTZ1\r"])
        text = "".join(text)
        try:
            tomllib.loads(text)
            is_toml = True
        except ValueError:
            is_toml = False
        (tmp_path / "c").write_text(text, newline="")
        _, output, _ = kvtcd("--check-config", "--json", "--config", tmp_path / "c", "--directory", "", "--socket", tmp_path / "s")
        # Mistakes of form have no key; what a key may be is another matter.
        errors = [error for error in json.loads(output)["errors"] if not error["key"] or "there already" in error["message"]]
        assert is_toml == (not errors), (text, errors)
