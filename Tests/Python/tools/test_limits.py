"""What kvtcd makes of the limits that it runs under: of control groups, resource limits, affinity, and of the kernel's no."""

import os
import re
import resource
import subprocess
from pathlib import Path

import pytest

import kvtc

from configured import kvtcd, report
from conftest import binary
from samples import open_session, random_pages, to_push

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_group(controller, **files):
    """A command that runs another in a control group of its own with these files, in version 2 or 1; the group's directory."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for fields in mounts:
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        point = Path(fields[4])
        available = (point / "cgroup.controllers").read_text().split() if kind == "cgroup2" else options
        if kind in ("cgroup", "cgroup2") and controller in available and fields[3] == "/":
            group = point / f"kvtcd-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                pytest.skip(f"no control groups may be made: {error}")
            for name, value in files.items():
                file = group / f"{controller}.{name if kind == 'cgroup' else V2[name]}"
                if not file.exists():
                    group.rmdir()
                    pytest.skip(f"there is no {file}")
                file.write_text(f"{value}\n" if kind == "cgroup" or name != "cfs_quota_us" else f"{value} 100000\n")
            return ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$0" "$@"'], group
    pytest.skip(f"no hierarchy of control groups with {controller} is mounted")


V2 = {"limit_in_bytes": "max", "cfs_quota_us": "max"}


@needs_root
def test_the_memory_limit_of_a_control_group_counts(place):
    prefix, group = in_group("memory", limit_in_bytes=512 << 20)
    try:
        settings = report(*place, prefix=prefix)
        assert settings["ram.budget"]["value"] == 128 << 20
        assert settings["ram.budget"]["place"].startswith(f"default, from {group}/memory.")
        assert settings["limits.arena_per_user"]["value"] == 128 << 20
        status, _, complaints = kvtcd("--check-config", "--ram-budget", "1GiB", *place, prefix=prefix)
        assert status == 64 and f"more than the 512MiB of memory that {group}/memory." in complaints
        status, _, complaints = kvtcd("--check-config", "--ram-budget", "500MiB", *place, prefix=prefix)
        assert status == 0 and "with the arenas of one user (limits.arena_per_user = 128MiB) more than" in complaints
    finally:
        group.rmdir()


@needs_root
def test_the_processor_quota_of_a_control_group_counts(place):
    prefix, group = in_group("cpu", cfs_quota_us=50_000)
    try:
        setting = report(*place, prefix=prefix)["workers.threads"]
        assert setting["value"] == 1
        if len(os.sched_getaffinity(0)) > 1:
            assert setting["place"].startswith(f"default, from {group}/cpu.")
    finally:
        group.rmdir()


def test_resource_limits_and_affinity_count(place):
    settings = report(*place, prefix=["sh", "-c", 'ulimit -v 4194304 && exec "$0" "$@"'])
    assert settings["ram.budget"]["value"] <= 1 << 30
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > 4 << 30:
        assert settings["ram.budget"]["place"] == "default, from RLIMIT_AS"
    first = min(os.sched_getaffinity(0))
    assert report(*place, prefix=["taskset", "-c", str(first)])["workers.threads"]["value"] == 1


@pytest.mark.parametrize("limit, mebibytes", [("v", 320), ("v", 400), ("v", 600), ("d", 400)])
def test_with_little_address_space_it_keeps_pages_within_it(make_daemon, place, limit, mebibytes):
    prefix = ["sh", "-c", f'ulimit -{limit} {mebibytes << 10} && exec "$0" "$@"']
    budget = report(*place, prefix=prefix)["ram.budget"]
    if limit == "v":
        assert budget["place"] == "default, from RLIMIT_AS" and budget["value"] <= mebibytes << 18
        status, _, complaints = kvtcd("--check-config", "--ram-budget", f"{mebibytes}MiB", *place, prefix=prefix)
        assert status == 64 and "that RLIMIT_AS leaves for pages" in complaints
    daemon = make_daemon(prefix=prefix, **{"ram.budget": min(budget["value"], 64 << 20), "limits.arena_per_user": 32 << 20})
    keys, contents = random_pages(400)
    with daemon.connect(arena_bytes=4 << 20) as client:
        session = open_session(client)
        assert kvtc.PushOutcome.FULL not in session.push(to_push(keys, contents))
        assert session.fetch(keys) == contents and client.status()["state"] == "ready"
    assert daemon.stop() == 0, daemon.log.read_text()


@pytest.mark.parametrize("limit, name", [("v", "RLIMIT_AS"), ("d", "RLIMIT_DATA")])
def test_too_little_for_the_daemon_itself_is_told_at_once(place, limit, name):
    prefix = ["sh", "-c", f'ulimit -{limit} 110000 && exec "$0" "$@"']
    for mode in (["--check-config"], []):
        status, _, complaints = kvtcd(*mode, *place, prefix=prefix)
        assert status == 78 and re.search(rf"{name} allows 107 MiB, and the daemon itself takes \d+ MiB: raise it", complaints), complaints


def test_files_that_may_not_be_as_large_as_segments_and_arenas_are_told_at_once(place):
    prefix = ["sh", "-c", 'ulimit -f 65536 && exec "$0" "$@"']
    status, _, complaints = kvtcd("--check-config", *place, prefix=prefix)
    assert status == 78, complaints
    for key, file in (("ram.budget", "an arena"), ("disk.segment", "a segment")):
        assert re.search(rf"{key}.*RLIMIT_FSIZE allows files of 32MiB, and {file} takes", complaints), complaints


def test_memory_that_the_kernel_refuses_is_told_while_it_lasts(make_daemon):
    daemon = make_daemon(**{"ram.budget": "256MiB", "disk.budget": 0})
    keys, contents = random_pages(4)
    kvtcctl = [binary("kvtcctl", "KVTCCTL"), "status", "--socket", daemon.socket]
    with daemon.connect(arena_bytes=0) as client:
        session = open_session(client)
        # Room for everything but an arena for pages.
        taken = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        unlimited = resource.prlimit(daemon.pid, resource.RLIMIT_AS, (taken + (192 << 20), resource.RLIM_INFINITY))
        assert set(session.push(to_push(keys, contents))) == {kvtc.PushOutcome.FULL}
        status = client.status()
        assert status["state"] == "degraded" and "Cannot allocate memory" in status["tiers"]["ram"]["refusal"]
        told = subprocess.run(kvtcctl, capture_output=True, text=True, timeout=60).stdout
        assert "gives no memory for the rest of the RAM budget" in " ".join(told.split())
        assert daemon.log.read_text().count("no memory for the rest of the RAM budget") == 1
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, unlimited)
        assert session.push(to_push(keys, contents)) == [kvtc.PushOutcome.STORED] * 4
        assert client.status()["state"] == "ready" and client.status()["tiers"]["ram"]["refusal"] is None
        assert session.fetch(keys) == contents


# Places
