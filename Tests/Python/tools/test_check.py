"""kvtcctl verify and kvtcd --fsck: damage on disk is found, said, and never handed out."""

import json
import os
import subprocess

import pytest

import kvtc

from conftest import binary
from samples import open_session, random_pages, to_push
from users import NOBODY, as_user


def run(name, variable, *arguments):
    result = subprocess.run([binary(name, variable), *arguments], capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


def fsck(directory, *arguments):
    return run("kvtcd", "KVTCD", "--fsck", directory, *arguments)


def segments(daemon):
    return sorted((daemon.directory / "state").glob("segment-*.log"))


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_fsck(daemon):
    directory = daemon.settings["disk.directory"]
    keys, contents = random_pages(6)
    with daemon.connect() as client, open_session(client) as session:
        session.push(to_push(keys, contents))
        client.flush()
        status, _, errors = fsck(directory)
        assert status == 8 and "kvtcctl verify" in errors, "a directory in use is not checked"
    daemon.stop()
    before = [path.read_bytes() for path in segments(daemon)]
    status, output, _ = fsck(directory, "--json")
    report = json.loads(output)
    assert status == 0 and not report["damaged"] and report["pages"] == 6
    # One more where the stop had blocks to write that took the place of pages after the flush.
    assert 1 <= len(report["files"]) <= 2 and all(file["verdict"] == "clean" and file["sealed"] for file in report["files"])
    # Byte 60 of the first page's payload.
    flip(segments(daemon)[0], 64 + 128 + 60)
    status, output, _ = fsck(directory)
    assert status == 4 and "bytes damaged" in output and "1 damaged" in output
    flip(segments(daemon)[0], 64 + 128 + 60)
    assert before == [path.read_bytes() for path in segments(daemon)], "nothing was changed"
    assert fsck(directory + "/none")[0] == 8
    daemon.start()


def test_verify(daemon):
    keys, contents = random_pages(6)
    with daemon.connect() as client, open_session(client) as session:
        session.push(to_push(keys, contents))
        client.flush()
        found = client.verify()
        assert (found.checked, found.corrupt, found.unreadable) == (12, 0, 0), "each in RAM and on disk"
        flip(segments(daemon)[0], 64 + 128 + 60)
        status, output, _ = run("kvtcctl", "KVTCCTL", "verify", "--json", "--socket", daemon.socket)
        assert status == 1 and json.loads(output)["corrupt"] == 1
        assert session.fetch(keys) == contents, "the copy in RAM is good"
        status, output, _ = run("kvtcctl", "KVTCCTL", "verify", "--socket", daemon.socket)
        assert status == 0 and "0 corrupt" in output
        assert client.flush().pages == 1, "the page is written again"
        assert client.verify().checked == 12


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_verify_is_for_administrators(make_daemon):
    daemon = make_daemon(**{"socket.mode": "0666"})
    os.chmod(daemon.directory, 0o755)

    def attempt():
        with daemon.connect() as client:
            try:
                client.verify()
            except kvtc.KvtcError as error:
                return error.code
        return None

    assert as_user(NOBODY, attempt) == kvtc.ErrorCode.FORBIDDEN
