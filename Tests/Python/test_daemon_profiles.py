"""Profiles and the lossy coders that need them: calibrate, load, push, pull, restart; and files that are no profiles."""

import json
import struct
import subprocess

import pytest

import kvtc
from conftest import binary
from kvtc import ErrorCode, Mode, Policy, QualityKind
from samples import to_push
from synthetic import GEOMETRY, LAYOUT, SHAPE, TOKENS, calibrate, document, rows


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """A profile made by kvtcctl from such samples."""
    return calibrate(tmp_path_factory.mktemp("profile"))


def put(daemon, name, content):
    directory = daemon.directory / "state" / "profiles"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content)


@pytest.fixture
def loaded(daemon, profile):
    """A client of a daemon that has the profile, and the profile's id."""
    put(daemon, profile.name, profile.read_bytes())
    with daemon.connect() as client:
        yield client, client.load_profile(profile.name)["id"]


@pytest.mark.parametrize("mode", [Mode.TRANSFORM, Mode.KVTC])
def test_lossy_pages_come_back_close_and_protected_rows_exact(daemon, loaded, mode):
    client, identifier = loaded
    keys, contents = document(3, 20)
    policy = Policy(mode=mode, quality=8, protected=[(100, 110)])
    session = client.open_session("document", profile=identifier, layout=LAYOUT, policy=policy)
    assert session.profile.hex() == identifier and session.token_bytes == LAYOUT.page_bytes(GEOMETRY, 1)
    session.push(to_push(keys, contents, TOKENS))
    client.flush()
    back = session.fetch(keys)
    pushed, pulled = rows(contents), rows(back)
    exact = (pushed == pulled).all(axis=1)
    assert exact[:4].all() and exact[-128:].all() and exact[100:110].all()
    coded = ~exact
    assert coded.sum() > 1000
    error = ((pushed - pulled)[coded] ** 2).sum() / (pushed[coded] ** 2).sum()
    assert error < 0.05, error
    assert client.status()["ratio"] > 3
    # What is decoded does not depend on who decodes it when.
    client.close()
    daemon.restart()
    with daemon.connect() as again:
        assert [row["id"] for row in again.profiles()] == [identifier]
        assert again.open_session("document", profile=identifier, layout=LAYOUT).fetch(keys) == back


def test_rows_beyond_the_exact_limit_are_calibrated_in_two_stages(tmp_path, profile):
    """Here one group holds all columns, so that what comes out spans what the exact basis does."""
    staged = calibrate(tmp_path, "--exact-limit", "64")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []

    def captured(path):
        command = [binary("kvtcctl", "KVTCCTL"), "profile", "show", "--json", str(path)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)["captured"]

    assert captured(profile) > 0.98 and abs(captured(staged) - captured(profile)) < 0.005


def test_a_tighter_bound_costs_bytes_and_brings_precision(loaded):
    client, identifier = loaded
    errors = []
    for number, bound in enumerate([1e-1, 1e-2, 1e-3]):
        keys, contents = document(10 + number, 8)
        policy = Policy(sink=0, window=0, mode=Mode.TRANSFORM, quality_kind=QualityKind.DISTORTION, quality=bound)
        session = client.open_session("bound", profile=identifier, layout=LAYOUT, policy=policy)
        session.push(to_push(keys, contents, TOKENS))
        client.flush()
        pushed, pulled = rows(contents), rows(session.fetch(keys))
        errors.append(((pushed - pulled) ** 2).sum() / (pushed**2).sum())
    assert errors[0] > errors[1] > errors[2] > 0


def test_the_session_takes_the_profiles_geometry_or_none(loaded):
    client, identifier = loaded
    client.open_session("same", profile=identifier, geometry=GEOMETRY, layout=LAYOUT)
    for other in (
        kvtc.Geometry.from_heads(5, 2, 16),
        kvtc.Geometry.from_heads(**SHAPE, rope_base=20000.0),
        kvtc.Geometry.from_heads(**SHAPE, rope_style="interleaved"),
    ):
        with pytest.raises(kvtc.KvtcError) as caught:
            client.open_session("other", profile=identifier, geometry=other, layout=LAYOUT)
        assert caught.value.code == ErrorCode.GEOMETRY_MISMATCH


def test_kvtcctl_shows_and_loads_it(daemon, profile):
    put(daemon, profile.name, profile.read_bytes())
    program = binary("kvtcctl", "KVTCCTL")

    def run(*arguments):
        command = [program, *arguments, "--socket", daemon.socket]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert "synthetic" in run("profile", "load", profile.name)
    assert "synthetic" in run("profile", "list") and profile.name in run("profile", "list")
    assert "synthetic" in run("status")


def hostile(profile):
    """Files that claim to be profiles, by what is wrong with them."""
    good = profile.read_bytes()
    length = struct.unpack("<Q", good[:8])[0]
    header = json.loads(good[8 : 8 + length])
    moved = json.loads(json.dumps(header))
    first = next(name for name in moved if name != "__metadata__")
    moved[first]["data_offsets"] = [0, 1 << 62]
    misshapen = json.loads(json.dumps(header))
    misshapen[first]["shape"] = [1 << 31, 1 << 31]

    def with_header(changed):
        text = json.dumps(changed).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + good[8 + length :]

    return {
        "empty": b"",
        "short": good[:5],
        "cut in the header": good[: 8 + length // 2],
        "cut in the data": good[:-1000],
        "header length": struct.pack("<Q", 2**64 - 1) + good[8:],
        "no JSON": good[:8] + b"\xff" * length + good[8 + length :],
        "deep JSON": struct.pack("<Q", 200000) + b"[" * 200000,
        "offsets": with_header(moved),
        "shapes": with_header(misshapen),
        "no metadata": with_header({k: v for k, v in header.items() if k != "__metadata__"}),
    }


def test_files_that_are_no_profiles(daemon, profile):
    with daemon.connect() as client:
        for what, content in hostile(profile).items():
            put(daemon, "bad.kvtc.safetensors", content)
            with pytest.raises(kvtc.KvtcError) as caught:
                client.load_profile("bad.kvtc.safetensors")
            assert caught.value.code == ErrorCode.UNKNOWN_PROFILE, what
        put(daemon, profile.name, profile.read_bytes())
        assert client.load_profile(profile.name)["model"] == "synthetic"
        assert len(client.profiles()) == 1


def test_a_bad_profile_does_not_keep_the_daemon_from_starting(daemon, profile):
    put(daemon, "bad.kvtc.safetensors", b"no profile at all")
    put(daemon, profile.name, profile.read_bytes())
    daemon.restart()
    with daemon.connect() as client:
        assert [row["model"] for row in client.profiles()] == ["synthetic"]
