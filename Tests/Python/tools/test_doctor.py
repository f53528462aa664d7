"""``kvtcctl doctor`` with the daemon up, away, unwell and not the caller's, on this machine as it is."""

import json
import os
import socket
import subprocess

import pytest

from conftest import Daemon, binary
from users import NOBODY

FINDING = {"check", "severity", "looked_at", "found", "means", "mend"}
DOCUMENT = {"problems", "warnings", "notes", "findings"}
# Whatever machine this is, these say the same.
OURS = ("daemon", "config", "permissions.socket", "permissions.directory", "limits.files", "limits.memory", "namespace", "profiles")


@pytest.fixture(scope="module")
def daemon():
    daemon = Daemon().start()
    os.chmod(daemon.directory, 0o755)
    yield daemon
    daemon.close()


def doctor(*arguments, user=None):
    """Exit status, and the findings by check."""
    command = [binary("kvtcctl", "KVTCCTL"), "doctor", "--json", *map(str, arguments)]
    options = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=False, **options)
    assert result.stderr == "", result.stderr
    document = json.loads(result.stdout)
    assert set(document) == DOCUMENT and all(set(finding) == FINDING for finding in document["findings"])
    severities = [finding["severity"] for finding in document["findings"]]
    assert [document["problems"], document["warnings"], document["notes"]] == [severities.count(one) for one in ("problem", "warning", "note")]
    assert result.returncode == (1 if document["problems"] else 0)
    for finding in document["findings"]:
        if finding["severity"] in ("warning", "problem"):
            assert finding["means"] and finding["mend"], finding
    found = {}
    for finding in document["findings"]:
        found.setdefault(finding["check"], finding)
    return found


def test_a_daemon_that_is_well_has_no_problem(daemon):
    found = doctor("--socket", daemon.socket)
    assert {check: found[check]["severity"] for check in OURS if check != "profiles"} == {check: "ok" for check in OURS if check != "profiles"}
    # The configuration is the one that the daemon was started with.
    assert str(daemon.directory / "kvtcd.toml") in found["config"]["looked_at"]
    assert found["profiles"]["severity"] == "note"
    assert f"/proc/{daemon.pid}/limits" == found["limits.files"]["looked_at"]


def test_people_are_told_in_lines_and_what_to_paste_stays_whole(daemon):
    command = [binary("kvtcctl", "KVTCCTL"), "doctor", "--socket", daemon.socket + "-none"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C", "COLUMNS": "60"}, timeout=60)
    assert result.returncode == 1 and result.stderr == "" and result.stdout.isascii()
    lines = result.stdout.splitlines()
    assert lines[0].startswith("problem  daemon: no daemon answers") and "problem" in lines[-1]
    # Nor can a path be cut that is longer than a line.
    assert all(len(line) <= 60 or "mend:" in line or line.strip().startswith("/") for line in lines)
    assert any("mend:" in line and "kvtcd" in line for line in lines)


def test_away_left_over_or_something_else(daemon, tmp_path):
    away = doctor("--socket", tmp_path / "s")
    assert away["daemon"]["severity"] == "problem" and "no socket" in away["daemon"]["means"]
    (tmp_path / "file").write_text("")
    other = doctor("--socket", tmp_path / "file")
    assert other["permissions.socket"]["found"] == "that is no socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "t"))
        left = doctor("--socket", tmp_path / "t")
        assert "left over" in left["daemon"]["means"]
        listener.listen()
        # Connected, and no answer.
        assert doctor("--socket", tmp_path / "t", "--timeout", 1)["daemon"]["found"].startswith("something listens and does not answer")


def test_a_configuration_that_is_no_good_is_the_daemons_own_words(daemon, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('ram.budget = "100000GiB"\n[workers]\nthread = 2\n')
    found = doctor("--socket", tmp_path / "s", "--config", config)
    assert found["config"]["severity"] == "problem" and f"{config}:1" in found["config"]["found"]
    config.write_text(f'ram.budget = "32MiB"\ndisk.directory = "{tmp_path}/d"\n')
    found = doctor("--socket", daemon.socket, "--config", config)
    assert found["config.applied"]["severity"] == "warning" and "32MiB" in found["config.applied"]["found"]


def test_a_file_that_is_no_profile_any_more(daemon):
    profile = daemon.directory / "state" / "profiles" / "x.safetensors"
    profile.parent.mkdir(exist_ok=True)
    profile.write_bytes(b"\x00" * 100)
    try:
        found = doctor("--socket", daemon.socket)
        assert found["profiles"]["severity"] == "problem" and found["profiles"]["looked_at"] == str(profile)
    finally:
        profile.unlink()


def test_others_may_read_what_is_kept(daemon):
    state = daemon.directory / "state"
    state.chmod(0o755)
    try:
        found = doctor("--socket", daemon.socket)
        assert found["permissions.directory"]["severity"] == "warning"
        assert found["permissions.directory"]["mend"] == f"chmod o-rx {state}"
    finally:
        state.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_privileges_it_says_what_it_could_not_see(daemon):
    # A program of a build directory need not be anybody's to run.
    if subprocess.run(["test", "-x", binary("kvtcctl", "KVTCCTL")], user=NOBODY, group=NOBODY, extra_groups=[]).returncode != 0:
        pytest.skip("the built program is not for other users")
    refused = doctor("--socket", daemon.socket, user=NOBODY)
    assert refused["daemon"]["found"].endswith("Permission denied") and refused["permissions.socket"]["severity"] == "problem"
    assert "adduser" not in refused["permissions.socket"]["mend"]
    assert refused["config"]["severity"] == "note" and "--config" in refused["config"]["found"]
    os.chmod(daemon.socket, 0o666)
    try:
        tenant = doctor("--socket", daemon.socket, user=NOBODY)
        assert tenant["daemon"]["severity"] == "ok" and tenant["permissions.socket"]["severity"] == "note"
        assert tenant["disk.files"]["severity"] == "note" and "could not be seen" in tenant["disk.files"]["found"]
        assert not [finding for finding in tenant.values() if finding["severity"] == "problem"]
    finally:
        os.chmod(daemon.socket, 0o660)
