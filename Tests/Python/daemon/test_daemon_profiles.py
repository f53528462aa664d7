"""Profiles and the lossy coders that need them: calibrate, load, push, pull, restart; and files that are no profiles."""

import json
import struct
import subprocess

import pytest

import kvtc
from kvtc import ErrorCode, Mode, Policy, PushOutcome, QualityKind

from conftest import binary
from kernels import runnable
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


def load(client, daemon, profile):
    """The id of a profile that the daemon has then."""
    put(daemon, profile.name, profile.read_bytes())
    return client.load_profile(profile.name)["id"]


@pytest.fixture
def loaded(daemon, profile):
    """A client of a daemon that has the profile, and the profile's id."""
    with daemon.connect() as client:
        yield client, load(client, daemon, profile)


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


def test_pages_with_and_without_a_profile_never_meet(loaded):
    """One that is coded with a profile is of no use to a session without."""
    client, identifier = loaded
    keys, contents = document(5, 4)
    policies = {identifier: Policy(mode=Mode.TRANSFORM, sink=0, window=0), "": Policy(mode=Mode.LOSSLESS)}
    for profile, policy in policies.items():
        session = client.open_session("s", profile=profile, geometry=GEOMETRY, layout=LAYOUT, policy=policy)
        assert session.lookup(keys).leading_run == 0
        assert session.push(to_push(keys, contents, TOKENS)) == [PushOutcome.STORED] * 4
        client.flush()
        back = session.fetch(keys)
        assert None not in back and (back == contents) == (profile == "")
        other = client.open_session("o", profile=profile, geometry=GEOMETRY, layout=LAYOUT, identity=b"other weights")
        assert other.lookup(keys).leading_run == 0 and other.fetch(keys) == [None] * 4


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


def test_a_closed_sessions_window_is_coded_near_losslessly_until_it_is_pushed_anew(daemon, loaded):
    client, identifier = loaded
    keys, contents = document(30, 8)
    policy = Policy(mode=Mode.TRANSFORM, quality=16)
    sizes = []
    for near in (None, 2**-9):
        policy.near = near
        with client.open_session("talk", profile=identifier, layout=LAYOUT, policy=policy) as session:
            assert session.policy().policy == policy
            session.push(to_push(keys, contents, TOKENS))
        client.flush()
        sizes.append(client.status()["bytes"]["stored"])
        again = client.open_session("talk", profile=identifier, layout=LAYOUT, policy=policy)
        pushed, pulled = rows(contents), rows(again.fetch(keys))
        exact = (pushed == pulled).all(axis=1)
        assert exact[:4].all() and exact[-128:].all() == (near is None)
        error = ((pushed - pulled)[-128:] ** 2).sum() / (pushed[-128:] ** 2).sum()
        assert error < 0.01 and (error == 0) == (near is None)
        outcomes = again.push(to_push(keys, contents, TOKENS))
        window = kvtc.PushOutcome.PRESENT if near is None else kvtc.PushOutcome.STORED
        assert outcomes == [kvtc.PushOutcome.PRESENT] * 6 + [window] * 2
        assert (rows(again.fetch(keys))[-128:] == pushed[-128:]).all()
        again.drop()
        again.close()
    assert sizes[1] < 0.5 * sizes[0], sizes
    counters = client.status()["counters"]
    assert counters["near"] == counters["renewed"] == 2


def test_a_limit_on_the_distortion_and_the_protection_of_outliers(loaded):
    client, identifier = loaded
    keys, contents = document(50, 4)
    strong = rows(contents).astype("float16")
    strong[70] *= 8
    contents = [strong[i : i + TOKENS].tobytes() for i in range(0, len(strong), TOKENS)]
    seen = []
    for limit, keep in [(None, True), (None, False), (0.0005, True)]:
        policy = Policy(sink=0, window=0, mode=Mode.TRANSFORM, quality=64, distortion_limit=limit)
        policy.keep_outliers = keep
        with client.open_session("limits", profile=identifier, layout=LAYOUT, policy=policy) as session:
            session.push(to_push(keys, contents, TOKENS))
            client.flush()
            exact = (rows(session.fetch(keys)) == rows(contents)).all(axis=1)
            row = client.status()["sessions"][0]
            assert row["keep_outliers"] == keep and row["distortion_limit"] == (limit and pytest.approx(limit))
            seen.append((row["outlier_rows"], bool(exact[70]), row["limited"], row["kept_lossless"]))
            session.drop()
    assert seen == [(1, True, 0, 0), (0, False, 0, 0), (1, True, 4, 0)]
    with pytest.raises(ValueError, match="distortion_limit.*0.0005"):
        Policy(mode="transform", distortion_limit=0.0001)
    policy = Policy(mode="transform", distortion_limit=0.001)
    # What an older client sends.
    object.__setattr__(policy, "distortion_limit", 0.0001)
    with pytest.raises(kvtc.KvtcError, match="policy.distortionLimit.*0.0005"):
        client.open_session("limits", profile=identifier, layout=LAYOUT, policy=policy)


def test_kvtcctl_sets_bounds_and_shows_drift(daemon, loaded):
    client, identifier = loaded

    def run(*arguments):
        command = [binary("kvtcctl", "KVTCCTL"), *map(str, arguments), "--socket", daemon.socket]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    policy = Policy(sink=0, window=0, mode=Mode.TRANSFORM, quality=16)
    session = client.open_session("odd one", profile=identifier, layout=LAYOUT, policy=policy)
    run("policy", "set", session.number, "--near", "0.25", "--limit", "0.5", "--no-keep-outliers")
    now = json.loads(run("policy", "get", session.number, "--json"))
    assert (now["near"], now["distortion_limit"], now["keep_outliers"]) == (0.25, 0.5, False)
    assert "within distortion 0.25" in run("policy", "get", session.number)
    run("policy", "set", session.number, "--near", "off", "--limit", "off")
    now = json.loads(run("policy", "get", session.number, "--json"))
    assert now["near"] is None and now["distortion_limit"] is None and not now["keep_outliers"]
    keys, contents = document(70, 12)
    session.push(to_push(keys, widened(contents), TOKENS))
    client.flush()
    row = json.loads(run("status", "--json"))["sessions"][0]
    assert row["drifting"] and row["drift"] > 1.5 and row["drift_pages"] == 12
    assert "Drift: the profile expects" in run("status") and "odd one" in run("status") and " !" in run("sessions")
    assert daemon.logged("drifts from its profile").count("drifts from its profile") == 1


def widened(contents):
    """Pages three times as far from their mean as those calibrated on."""
    return [(3 * rows([page])).astype("float16").tobytes() for page in contents]


@pytest.mark.parametrize("kernels", runnable() or [""])
def test_profiles_are_of_one_quality_whatever_the_kernels(daemon, tmp_path, monkeypatch, kernels):
    """Kernels round differently. What a page costs, and whether drift is seen, does not depend on who calibrated."""
    monkeypatch.setenv("OPENBLAS_CORETYPE", kernels)
    with daemon.connect() as client:
        identifier = load(client, daemon, calibrate(tmp_path))
        for number, ratio in enumerate((4, 8, 16, 64)):
            policy = Policy(sink=0, window=0, mode=Mode.TRANSFORM, quality=ratio)
            policy.keep_outliers = False
            for seed, change in ((70 + number, list), (80 + number, widened)):
                session = client.open_session("text", profile=identifier, layout=LAYOUT, policy=policy)
                keys, contents = document(seed, 12)
                session.push(to_push(keys, change(contents), TOKENS))
                client.flush()
                row = next(row for row in client.status()["sessions"] if row["id"] == session.number)
                assert row["drift_pages"] == 12, (ratio, row)
                # Below 16 times it is mostly the basis's rounding that errs, and the profile expects that.
                assert row["drifting"] == (change is widened) or ratio < 16, (ratio, row)
                pushed, pulled = rows(change(contents)), rows(session.fetch(keys))
                error = ((pushed - pulled) ** 2).sum() / (pushed**2).sum()
                assert 0 < error < (0.1 if ratio > 16 else 0.0005), (ratio, error)
