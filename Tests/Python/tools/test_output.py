"""What the programs write, and what they do where it cannot be written; what they say of their own arguments."""

import os
import re
import subprocess

import pytest

from conftest import binary

COMMANDS = ["", "status", "flush", "verify", "sessions", "policy", "policy get", "policy set", "drop", "profile", "profile list",
            "profile load", "profile show", "calibrate", "bench", "plan", "ping"]  # fmt: skip


def command(program, *arguments):
    return [binary(program, program.upper()), *map(str, arguments)]


@pytest.fixture
def environment(tmp_path):
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "LC_ALL": "C.UTF-8"}


PRINTING = [
    ("kvtcd", "--help"), ("kvtcd", "--version"), ("kvtcd", "--generate-completion-script", "zsh"),
    ("kvtcd", "--check-config", "--ram-budget", "1MiB", "--disk-budget", 0),
    ("kvtcd", "--check-config", "--json", "--ram-budget", "1MiB", "--disk-budget", 0),
    ("kvtcctl", "--help"), ("kvtcctl", "--version"), ("kvtcctl", "policy", "set", "--help"),
    ("kvtcctl", "--generate-completion-script", "bash"), ("kvtcctl", "bench", "--pages", 1, "--json"),
]  # fmt: skip
TALKING = [("status",), ("status", "--json"), ("status", "--watch", 0.1), ("sessions",), ("sessions", "--json"), ("profile", "list"),
           ("ping", "--count", 1), ("ping", "--json"), ("flush",), ("flush", "--json"), ("verify",), ("drop", "--all")]  # fmt: skip


def to_a_full_device(arguments, environment):
    with open("/dev/full", "w") as full:
        result = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=60)
    name = os.path.basename(arguments[0])
    assert result.stderr.startswith(f"{name}: standard output: "), result.stderr
    return result.returncode


def to_a_closed_pipe(arguments, environment, ignored):
    """Exit status and messages of a program whose results nobody reads; with SIGPIPE ignored the write fails instead."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        result = subprocess.run(
            arguments, stdout=pipe, stderr=subprocess.PIPE, text=True, env=environment, timeout=60, restore_signals=not ignored
        )
    return result.returncode, result.stderr


@pytest.mark.parametrize("arguments", PRINTING, ids=lambda value: " ".join(map(str, value)))
def test_results_that_cannot_be_written_are_no_success(environment, arguments):
    assert to_a_full_device(command(*arguments), environment) == 1
    for ignored in (False, True):
        status, messages = to_a_closed_pipe(command(*arguments), environment, ignored)
        assert status != 0 and messages == "", messages


@pytest.mark.parametrize("arguments", TALKING, ids=lambda value: " ".join(map(str, value)))
def test_answers_that_cannot_be_written_are_no_success(daemon, environment, arguments):
    environment |= {"KVTC_SOCKET": daemon.socket}
    assert to_a_full_device(command("kvtcctl", *arguments), environment) == 1
    status, messages = to_a_closed_pipe(command("kvtcctl", *arguments), environment, True)
    assert status == 1 and messages == ""


def test_a_check_of_a_disk_tier_that_cannot_be_told_is_none(environment, make_daemon):
    daemon = make_daemon()
    assert daemon.stop() == 0
    for options in ([], ["--json"]):
        assert to_a_full_device(command("kvtcd", "--fsck", daemon.settings["disk.directory"], *options), environment) == 8


def test_closed_streams_are_not_taken_for_others(daemon, environment):
    """Else the socket would have the number of standard output, and the daemon get the results for a request."""
    environment |= {"KVTC_SOCKET": daemon.socket}
    shell = ["sh", "-c", '"$0" ping >&- 2>&- <&-', *command("kvtcctl")]
    assert subprocess.run(shell, env=environment, timeout=60).returncode == 0


def test_nowhere_to_complain_to_changes_no_status(environment):
    with open("/dev/full", "w") as full:
        for arguments, status in [(("kvtcd", "--socket", ""), 64), (("kvtcd", "--check-config", "--log-level", "x"), 64),
                                  (("kvtcctl", "status", "--socket", "none"), 69), (("kvtcctl", "nonsense"), 64)]:  # fmt: skip
            assert subprocess.run(command(*arguments), stderr=full, env=environment, timeout=60).returncode == status


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_eighty_columns(environment, name):
    for program in ("kvtcd", "kvtcctl") if not name else ("kvtcctl",):
        result = subprocess.run(command(program, *name.split(), "--help"), capture_output=True, text=True, env=environment, timeout=60)
        assert result.returncode == 0 and not [line for line in result.stdout.splitlines() if len(line) > 80]
        assert "EXAMPLES" in result.stdout, name


STEERING = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\nkvtcctl: forged"


@pytest.mark.parametrize(
    "arguments",
    [
        ("kvtcctl", STEERING), ("kvtcctl", "status", STEERING), ("kvtcctl", "status", f"--{STEERING}"),
        ("kvtcctl", "policy", "set", 1, f"--ratio={STEERING}"), ("kvtcctl", "policy", "set", 1, "--mode", STEERING),
        ("kvtcctl", "status", "--socket", STEERING), ("kvtcctl", "profile", "show", STEERING), ("kvtcctl", "drop", STEERING),
        ("kvtcctl", "calibrate", STEERING, "--out", "x"),
        ("kvtcd", STEERING), ("kvtcd", f"--{STEERING}"), ("kvtcd", "--check-config", "--socket", STEERING + "x" * 99),
        ("kvtcd", "--check-config", "--ram-budget", STEERING), ("kvtcd", "--check-config", "--config", STEERING),
        ("kvtcd", "--fsck", STEERING), ("kvtcd", "--log-level", STEERING),
    ],
    ids=lambda value: " ".join(map(str, value[:-1])),
)  # fmt: skip
def test_arguments_are_repeated_without_what_steers_a_terminal(environment, arguments):
    result = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment, timeout=60)
    assert result.returncode != 0 and result.stdout == ""
    assert "owned" in result.stderr and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.stderr), repr(result.stderr)
    assert not re.search("^kvtcctl: forged", result.stderr, re.M), result.stderr
