"""A profile in use never changes: not by anything that happens to its file, which is read once."""

import json
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import kvtc
from kvtc import ErrorCode, Mode, Policy
from kvtc.protocol import messages, wire

from conftest import binary
from samples import to_push
from synthetic import LAYOUT, TOKENS, calibrate, document

NAME = "m.kvtc.safetensors"


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """Two profiles of one geometry and other content: of other ranks."""
    return [calibrate(tmp_path_factory.mktemp("profile"), *options).read_bytes() for options in ([], ["--rank", "20"])]


@pytest.fixture
def directory(daemon):
    """The daemon's profile directory."""
    path = daemon.directory / "state" / "profiles"
    path.mkdir(parents=True, exist_ok=True)
    return path


def overwrite(path, content):
    """As ``cp`` does it: the same inode, of length 0 for a moment."""
    with open(path, "r+b") as file:
        file.truncate(0)
        file.write(content)


CHANGES = {
    "overwritten": lambda path, other: overwrite(path, other),
    "cut to nothing": lambda path, other: os.truncate(path, 0),
    "cut in the middle": lambda path, other: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path, other: path.write_bytes(path.read_bytes() + b"\0" * 5000),
    "noise": lambda path, other: overwrite(path, np.random.default_rng(1).bytes(path.stat().st_size)),
    "deleted": lambda path, other: path.unlink(),
    "renamed over": lambda path, other: (path.with_suffix(".new").write_bytes(other), os.replace(path.with_suffix(".new"), path)),
    "a link elsewhere": lambda path, other: (path.unlink(), path.symlink_to("/nowhere")),
    "a directory": lambda path, other: (path.unlink(), path.mkdir()),
}


def test_what_happens_to_the_file_changes_no_page(daemon, directory, profiles):
    path = directory / NAME
    process = f"/proc/{daemon.pid}"
    for seed, (what, change) in enumerate(CHANGES.items()):
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(profiles[0])
        with daemon.connect() as client:
            identifier = client.load_profile(NAME)["id"]
            session = client.open_session("s", profile=identifier, layout=LAYOUT, policy=Policy(mode=Mode.TRANSFORM, window=0))
            keys, contents = document(1000 * seed, 4)
            session.push(to_push(keys, contents, TOKENS))
            client.flush()
            before = session.fetch(keys)
            assert None not in before
            # Nothing of the file is held: not open, not mapped. So it may go away with its file system, too.
            assert NAME not in Path(process, "maps").read_text()
            assert not any(entry.resolve().name == NAME for entry in Path(process, "fd").iterdir())
            change(path, profiles[1])
            assert session.fetch(keys) == before, what
            # Pages coded from now on are coded with the same profile, and sessions opened from now on have it.
            again, more = document(1000 * seed + 500, 2)
            session.push([kvtc.Page(key, (4 + n) * TOKENS, page) for n, (key, page) in enumerate(zip(again, more))])
            client.flush()
            other = client.open_session("t", profile=identifier, layout=LAYOUT)
            assert other.fetch(keys) == before and session.fetch(again) == other.fetch(again), what
            assert client.status()["counters"]["corrupt"] == 0
            client.drop()


def test_a_file_loaded_anew_under_the_name_leaves_the_old_profile_to_those_who_have_it(daemon, directory, profiles):
    path = directory / NAME
    path.write_bytes(profiles[0])
    with daemon.connect() as client, daemon.connect() as other:
        old = client.load_profile(NAME)["id"]
        session = client.open_session("old", profile=old, layout=LAYOUT, policy=Policy(mode=Mode.TRANSFORM, window=0))
        keys, contents = document(5, 3)
        session.push(to_push(keys, contents, TOKENS))
        client.flush()
        before = session.fetch(keys)
        overwrite(path, profiles[1])
        new = other.load_profile(NAME)["id"]
        assert new != old and [row["id"] for row in other.profiles()] == [new]
        assert {(row["id"], row["file"]) for row in other.status()["profiles"]} == {(old, None), (new, NAME)}
        assert session.fetch(keys) == before
        # By its id it can be had as long as anybody has it.
        assert other.open_session("also old", profile=old, layout=LAYOUT).fetch(keys) == before
        # Another profile's pages are another's.
        assert other.open_session("new", profile=new, layout=LAYOUT).fetch(keys) == [None] * 3
    with daemon.connect() as client:
        deadline = threading.Event()
        for _ in range(600):
            if [row["id"] for row in client.status()["profiles"]] == [new]:
                break
            deadline.wait(0.05)
        assert [row["id"] for row in client.status()["profiles"]] == [new]
        with pytest.raises(kvtc.KvtcError) as caught:
            client.open_session("late", profile=old, layout=LAYOUT)
        assert caught.value.code == ErrorCode.UNKNOWN_PROFILE


def test_files_that_never_end_or_are_none_are_refused_at_once(daemon, directory, profiles):
    os.mkfifo(directory / "fifo.safetensors")
    (directory / "zero.safetensors").symlink_to("/dev/zero")
    (directory / "loop.safetensors").symlink_to("loop.safetensors")
    (directory / "directory.safetensors").mkdir()
    (directory / "sparse.safetensors").touch()
    os.truncate(directory / "sparse.safetensors", 1 << 40)
    (directory / "grown.safetensors").write_bytes(profiles[0])
    os.truncate(directory / "grown.safetensors", 1 << 40)
    with daemon.connect() as client:
        for name in sorted(path.name for path in directory.iterdir()):
            with pytest.raises(kvtc.KvtcError) as caught:
                client.load_profile(name)
            assert caught.value.code == ErrorCode.UNKNOWN_PROFILE and name in str(caught.value)
    # Nor do they keep it from starting, with the one that is good.
    (directory / NAME).write_bytes(profiles[0])
    daemon.restart()
    with daemon.connect() as client:
        assert [row["file"] for row in client.profiles()] == [NAME]


def test_a_file_that_is_written_while_it_is_loaded_is_one_of_its_contents_or_refused(daemon, directory, profiles):
    path = directory / NAME
    path.write_bytes(profiles[0])
    over = threading.Event()

    def rewrite():
        while not over.is_set():
            for content in (profiles[1], profiles[0]):
                overwrite(path, content)

    writer = threading.Thread(target=rewrite)
    writer.start()
    known, seen = set(), set()
    try:
        with daemon.connect() as client:
            for _ in range(60):
                try:
                    seen.add(client.load_profile(NAME)["id"])
                except kvtc.KvtcError as error:
                    assert error.code == ErrorCode.UNKNOWN_PROFILE
    finally:
        over.set()
        writer.join()
    with daemon.connect() as client:
        for content in profiles:
            overwrite(path, content)
            known.add(client.load_profile(NAME)["id"])
    assert seen <= known


def kvtcctl(daemon, *arguments, cwd=None):
    command = [binary("kvtcctl", "KVTCCTL"), *map(str, arguments), "--socket", daemon.socket]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)


def test_kvtcctl_hands_a_file_over(daemon, profiles, tmp_path):
    (tmp_path / "model.kvtc.safetensors").write_bytes(profiles[0])
    result = kvtcctl(daemon, "profile", "load", "model.kvtc.safetensors", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    stored = daemon.directory / "state" / "profiles" / "model.kvtc.safetensors"
    assert stored.read_bytes() == profiles[0] and stored.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]
    # What is handed over is what is kept, whatever becomes of the file it came from.
    (tmp_path / "model.kvtc.safetensors").unlink()
    daemon.restart()
    with daemon.connect() as client:
        assert [row["file"] for row in client.profiles()] == ["model.kvtc.safetensors"]
    # A name that is no file here is one of the daemon's directory.
    document = json.loads(kvtcctl(daemon, "profile", "load", "model.kvtc.safetensors", "--json", cwd=tmp_path).stdout)
    assert document["stored"] and document["problem"] is None and document["bytes"] == len(profiles[0])
    # And one that is nowhere is told where it was looked for.
    result = kvtcctl(daemon, "profile", "load", "none.kvtc.safetensors", cwd=tmp_path)
    assert result.returncode == 1 and str(tmp_path) in result.stderr and str(stored.parent) in result.stderr


def test_the_client_hands_a_file_over_and_bad_ones_are_refused(daemon, profiles, tmp_path):
    path = tmp_path / "m.kvtc.safetensors"
    with daemon.connect() as client:
        path.write_bytes(profiles[1])
        assert client.load_profile(path)["stored"]
        for content in (b"no profile", profiles[1][:-1], bytes(50000)):
            path.write_bytes(content)
            with pytest.raises(kvtc.KvtcError) as caught:
                client.load_profile(str(path))
            assert caught.value.code == ErrorCode.UNKNOWN_PROFILE
        for name in ("a\0b.safetensors", ".hidden.safetensors", "x" * 300 + ".safetensors", "plain.txt", ""):
            with pytest.raises(kvtc.KvtcError) as caught:
                client._call(messages.StoreProfile(client.arena().number, 0, 5, name), messages.JsonReply)
            assert caught.value.code == ErrorCode.INVALID_FIELD
        for arena, offset, length, code in [
            (99, 0, 5, ErrorCode.UNKNOWN_ARENA),
            (None, 0, 0, ErrorCode.ARENA_BOUNDS),
            (None, 2**64 - 1, 5, ErrorCode.ARENA_BOUNDS),
            (None, 0, 2**64 - 1, ErrorCode.ARENA_BOUNDS),
            (wire.NONE32, 0, 5, ErrorCode.INVALID_FIELD),
        ]:
            request = messages.StoreProfile(client.arena().number if arena is None else arena, offset, length, NAME)
            with pytest.raises(kvtc.KvtcError) as caught:
                client._call(request, messages.JsonReply)
            assert caught.value.code == code
        # What was there before is there still.
        assert [row["file"] for row in client.profiles()] == [NAME]


def test_a_directory_that_takes_no_files_leaves_the_profile_in_memory_and_says_so(make_daemon, profiles, tmp_path):
    place = tmp_path / "profiles"
    place.mkdir()
    daemon = make_daemon(**{"profiles.directory": str(place)})
    place.rmdir()
    place.write_bytes(b"")
    (tmp_path / NAME).write_bytes(profiles[0])
    result = kvtcctl(daemon, "profile", "load", tmp_path / NAME)
    assert result.returncode == 0 and "memory only" in result.stderr, (result.stdout, result.stderr)
    with daemon.connect() as client:
        row = client.profiles()[0]
        assert not row["stored"]
        keys, contents = document(9, 2)
        session = client.open_session("s", profile=row["id"], layout=LAYOUT)
        session.push(to_push(keys, contents, TOKENS))
        assert None not in session.fetch(keys)


def test_samples_that_are_cut_while_they_are_read_are_an_error_with_words(tmp_path):
    calibrate(tmp_path)
    samples = tmp_path / "samples.safetensors"
    out = tmp_path / "other.kvtc.safetensors"
    command = [binary("kvtcctl", "KVTCCTL"), "calibrate", *[str(samples)] * 20, "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and samples.name not in maps.read_text():
            pass
        os.truncate(samples, 4096)
        _, message = process.communicate(timeout=60)
    assert process.returncode == 1 and "kvtcctl: " in message and not out.exists(), message


def test_a_profile_larger_than_an_arena_says_what_to_do(make_daemon, profiles, tmp_path):
    daemon = make_daemon(**{"limits.arena": "16KiB"})
    (tmp_path / NAME).write_bytes(profiles[0])
    result = kvtcctl(daemon, "profile", "load", tmp_path / NAME)
    assert result.returncode == 1 and "limits.arena" in result.stderr and "profile directory" in result.stderr
