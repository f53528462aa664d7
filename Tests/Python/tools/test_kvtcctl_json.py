"""The JSON of kvtcctl: the same keys every time, in snake case, null where nothing is set; and what the daemon counts and logs."""

import json
import os
import re
import shutil
import subprocess
import time

import pytest

import kvtc
from kvtc import Mode, Policy

from conftest import binary
from samples import open_session, random_pages, to_push
from synthetic import LAYOUT, TOKENS, calibrate, document

LATENCY = {"p50", "p90", "p99", "count", "sum_us", "below"}
PROFILE = {"id", "file", "model", "bytes", "stored", "weights", "problem"}
SESSION = {
    "id", "name", "tenant", "connection", "profile", "mode", "quality_kind", "quality", "sink", "window", "tokens", "pages",
    "raw_pages", "pinned", "ttl_s", "priority", "idle_s", "near", "distortion_limit", "keep_outliers", "is_idle", "outlier_rows",
    "limited", "kept_lossless", "near_pages", "drift", "drift_pages", "drifting", "code",
}  # fmt: skip
STATUS = {
    "version", "instance", "uptime_s", "tenant", "state", "state_reason", "tiers", "pages", "bytes", "ratio", "counters", "refused",
    "queues", "latency_us", "restore_costs", "profiles", "profile_directory", "leases", "tenants", "sessions", "shared",
}  # fmt: skip
COUNTERS = {
    "pushed", "present", "hits", "misses", "corrupt", "evicted_to_disk", "dropped", "encoded", "non_finite", "errors", "recovered",
    "recovered_from_ram", "outlier_rows", "limited", "kept_lossless", "near", "renewed", "drift_alarms", "corrupt_pulls",
    "dropped_by_request", "log_dropped", "lost",
}  # fmt: skip
POLICY = {
    "session", "tokens", "sink", "window", "mode", "quality_kind", "quality", "priority", "pinned", "ttl_s", "protected", "near",
    "distortion_limit", "keep_outliers", "code",
}  # fmt: skip
SUMMARY = {
    "id", "file", "model", "weights", "weighting", "rank", "layers", "row_elements", "calibration_tokens", "held_out_tokens", "captured", "bases",
    "expectations", "spectrum",
}  # fmt: skip
BENCH = {"mode", "ratio", "distortion", "encode_tokens_per_second", "decode_tokens_per_second", "decode_over_copy"}


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return calibrate(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def kvtcctl(daemon):
    return runner(daemon)


def runner(daemon):
    def run(*arguments, status=0):
        command = [binary("kvtcctl", "KVTCCTL"), *map(str, arguments)]
        environment = os.environ | {"KVTC_SOCKET": daemon.socket}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert result.returncode == status, result.stderr
        return result.stdout if status == 0 else result.stderr

    return run


def keys_of(value):
    """Every key of every object inside."""
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in keys_of(item)}
    return {key for item in value for key in keys_of(item)} if isinstance(value, list) else set()


def test_the_keys_are_always_the_same(daemon, client, kvtcctl, profile):
    def read(*arguments):
        return json.loads(kvtcctl(*arguments, "--json"))

    # Without anything set, and with everything.
    assert set(read("profile", "load", profile)) == PROFILE
    bare = open_session(client, "bare")
    policy = Policy(mode=Mode.TRANSFORM, window=0, sink=0, quality=16, near=0.25, distortion_limit=0.5, protected=[(0, 2)])
    full = client.open_session("full", profile=client.profiles()[0]["id"], layout=LAYOUT, policy=policy)
    keys, contents = document(1, 4)
    full.push(to_push(keys, contents, TOKENS))
    client.flush()
    full.fetch(keys)
    kvtcctl("policy", "get", 99, status=1)
    status = read("status")
    assert set(status) == STATUS and set(status["counters"]) == COUNTERS
    assert all(set(status["latency_us"][name]) == LATENCY for name in ("push", "pull", "encode", "decode"))
    assert set(status["refused"]) == {"total", "by_code", "last"}
    assert set(status["refused"]["last"]) == {"code", "request", "field", "message", "at"}
    assert [set(row) for row in status["sessions"]] == [SESSION, SESSION]
    assert [set(row) for row in read("sessions")] == [SESSION, SESSION]
    assert [set(row) for row in status["profiles"]] == [PROFILE] == [set(row) for row in read("profile", "list")]
    assert set(status["bytes"]) == {"raw_in", "stored", "returned", "written"}
    assert set(status["tiers"]["ram"]) == {"used", "budget", "pages", "refusal"}
    policies = [read("policy", "get", session.number) for session in (bare, full)]
    assert [set(policy) for policy in policies] == [POLICY, POLICY]
    assert policies[0]["near"] is None and policies[1]["near"] == 0.25
    (other,) = (row for row in status["sessions"] if row["name"] != "full")
    assert other["profile"] is None and other["near"] is None
    changed = read("policy", "set", bare.number, "--window", 5)
    assert set(changed) == {"session", "raw_tokens", "already_coded"}
    assert set(read("flush")) == {"pages", "bytes"} and set(read("verify")) == {"checked", "bytes", "corrupt", "unreadable"}
    assert set(read("drop", "--session", bare.number)) == {"dropped"}
    assert set(read("ping", "--count", 3)) == {"count", "bytes", "min_us", "p50_us", "max_us"}
    benched = read("bench", "--pages", 1)
    assert [set(row) for row in benched["modes"]] == [BENCH] * 4
    assert set(benched["matrix_products"]) == {"kernels", "gflops", "peak_gflops"}
    shown = json.loads(kvtcctl("profile", "show", profile, "--json"))
    assert set(shown) == SUMMARY and shown["rank"] is None
    documents = [status, policies, changed, shown, benched]
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", key) for key in keys_of(documents))


def test_an_empty_daemon_has_the_same_keys(kvtcctl):
    status = json.loads(kvtcctl("status", "--json"))
    assert set(status) == STATUS and set(status["counters"]) == COUNTERS
    assert status["ratio"] is None and status["refused"] == {"total": 0, "by_code": [], "last": None}
    assert status["state_reason"] is None


def test_a_mistake_of_a_client_is_refused_and_no_error(client, kvtcctl):
    before = int(time.time())
    kvtcctl("policy", "get", 99, status=1)
    kvtcctl("flush", "--session", 98, status=1)
    with pytest.raises(kvtc.KvtcError):
        open_session(client, "x" * 300)
    status = client.status()
    assert status["counters"]["errors"] == 0 and status["refused"]["total"] == 3
    assert status["refused"]["by_code"] == [{"code": "invalidField", "count": 1}, {"code": "unknownSession", "count": 2}]
    last = status["refused"]["last"]
    assert (last["code"], last["request"], last["field"]) == ("invalidField", "openSession", "name")
    assert before <= last["at"] <= time.time() + 1
    text = kvtcctl("status")
    assert "refused  3 requests (1 invalidField, 2 unknownSession); last" in text and "errors   0" in text


def test_what_is_dropped_on_request_is_counted_apart_and_logged_with_who(daemon, client, kvtcctl):
    keys, contents = random_pages(6)
    session = open_session(client)
    session.push(to_push(keys, contents))
    assert kvtcctl("drop", "--session", session.number) == "dropped 6 pages\n"
    session.push(to_push(keys, contents))
    assert kvtcctl("drop", "--all") == "dropped 6 pages\n"
    kvtcctl("flush")
    kvtcctl("policy", "set", session.number, "--window", 7)
    counters = client.status()["counters"]
    assert counters["dropped_by_request"] == 12 and counters["dropped"] == 0
    assert "dropped  12 pages on request" in kvtcctl("status")
    lines = daemon.logged('msg="policy changed"').splitlines()
    for what in ('msg="pages dropped"', 'msg="pages flushed"', 'msg="policy changed"'):
        found = [line for line in lines if what in line]
        assert found and all(re.search(rf"uid={os.getuid()}\b", line) and re.search(r"pid=\d+", line) for line in found), what
    assert sum('msg="pages dropped"' in line and "pages=6" in line for line in lines) == 2


def test_the_hit_rate_is_about_what_was_asked_for(daemon, client, kvtcctl):
    keys, contents = random_pages(8)
    session = open_session(client)
    session.push(to_push(keys, contents))
    client.flush()
    session.fetch(keys)
    segment = max((daemon.directory / "state").glob("segment-*"), key=lambda path: path.stat().st_size)
    with open(segment, "r+b") as file:
        for offset in range(9000, segment.stat().st_size, 4096):
            file.seek(offset)
            file.write(b"\xa5" * 64)
    kvtcctl("verify", "--json", status=1)
    counters = client.status()["counters"]
    assert counters["corrupt"] > 0 and counters["corrupt_pulls"] == 0, counters
    assert "8 hits, 0 misses, 0 corrupt (100.0 % hits)" in kvtcctl("status")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_flush_waits_as_long_as_something_comes_of_it(make_daemon):
    daemon = make_daemon()
    daemon.stop()
    # All writes together take longer than may pass without progress, each one much less.
    delay = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=800000:when=1+"]
    daemon.prefix = ["strace", "-f", "-qq", "-o", "/dev/null", *delay]
    daemon.start()
    daemon.prefix = []
    with daemon.connect(arena_bytes=0) as client:
        open_session(client).push(to_push(*random_pages(4)))
        start = time.monotonic()
        assert runner(daemon)("flush", "--timeout", 3).startswith("flushed 4 pages")
        assert time.monotonic() - start > 3


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_flush_gives_up_on_a_disk_that_hangs(make_daemon):
    daemon = make_daemon()
    daemon.stop()
    daemon.prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=12000000:when=1"]
    daemon.start()
    daemon.prefix = []
    with daemon.connect(arena_bytes=0) as client:
        open_session(client).push(to_push(*random_pages(4)))
        message = runner(daemon)("flush", "--timeout", 1, status=75)
        assert message.startswith("kvtcctl: ") and "1 s" in message, message
        # The daemon goes on with it.
        assert runner(daemon)("flush").startswith("flushed")


def test_flush_says_what_to_do_where_pins_fill_the_budget(make_daemon):
    daemon = make_daemon(**{"disk.budget": "2MiB", "disk.segment": "1MiB"})
    with daemon.connect() as client:
        policy = kvtc.Policy()
        policy.pin = True
        session = open_session(client, policy=policy)
        session.push(to_push(*random_pages(300)))
        message = " ".join(runner(daemon)("flush", status=1).split())
        assert "those least worth keeping, are not on disk; 300 pages that must stay because of a pin would take" in message, message
        assert "unpin some (TOUCH, or a policy without pin), or raise disk.budget" in message and "ioError" not in message
        # Else a stop could not keep them either.
        runner(daemon)("drop", "--all")


def test_a_daemon_without_a_disk_says_what_that_means(make_daemon):
    daemon = make_daemon(**{"disk.budget": "0"})
    with daemon.connect() as client:
        keys, contents = random_pages(2)
        open_session(client).push(to_push(keys, contents))
        message = runner(daemon)("flush", status=1)
        assert message.startswith("kvtcctl: there is no disk tier") and "disk.budget" in message and "ioError" not in message
        status = client.status()
        assert status["counters"]["errors"] == 0 and status["refused"]["total"] == 1
    assert "level=error" not in daemon.logged("no disk tier")
