"""The examples, built as they say and run against a real daemon, and what they left there as another client sees it."""

import os
import runpy
import subprocess
import sys

import numpy as np
import pytest

import kvtc

from conftest import ROOT, binary

EXAMPLES = ROOT / "Sources" / "Examples"
PYTHON = runpy.run_path(str(EXAMPLES / "worker.py"))


def c_worker(directory):
    program = str(directory / "worker")
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-o", program, str(EXAMPLES / "worker.c"), "-lcrypto"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return [program]


WORKERS = {
    "python": lambda directory: [sys.executable, str(EXAMPLES / "worker.py")],
    "swift": lambda directory: [binary("ExampleWorker", "KVTC_EXAMPLE")],
    "c": c_worker,
}


def run(command, socket):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python")}
    return subprocess.run([*command, socket], capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize("language", WORKERS)
def test_pages_come_back_and_are_there_for_others(language, daemon, tmp_path):
    command = WORKERS[language](tmp_path)
    # The second time the pages are there already.
    for _ in range(2):
        result = run(command, daemon.socket)
        assert (result.returncode, result.stdout, result.stderr) == (0, "2 pages of 1024 bytes came back as they were\n", "")
    geometry, tokens = PYTHON["GEOMETRY"], PYTHON["PAGE_TOKENS"]
    expected = [bytes(b for i in range(512) for b in ((i + page) % 256, 0x3C)) for page in range(2)]
    with daemon.connect() as client:
        session = client.open_session("other", geometry=geometry, page_tokens=tokens, identity=PYTHON["IDENTITY"])
        assert session.fetch(kvtc.page_keys(np.arange(2 * tokens), tokens)) == expected


@pytest.mark.parametrize("language", WORKERS)
def test_without_a_daemon_they_say_so_and_fail(language, tmp_path):
    result = run(WORKERS[language](tmp_path), str(tmp_path / "nobody"))
    assert result.returncode == 1 and "nobody" in result.stderr and result.stdout == ""


def test_the_example_in_c_says_what_is_refused(make_daemon, tmp_path):
    daemon = make_daemon(**{"limits.sessions_per_user": 1})
    with daemon.connect() as client:
        client.open_session("first", geometry=PYTHON["GEOMETRY"], page_tokens=16)
        result = run(c_worker(tmp_path), daemon.socket)
    assert result.returncode == 1 and result.stderr.startswith("refused (error 14): session: more than 1 sessions")


def test_the_example_in_c_is_short():
    assert len((EXAMPLES / "worker.c").read_text().splitlines()) <= 250
