"""What becomes of a daemon whose disk tier changes under it, or takes nothing when it starts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import kvtc

from samples import open_session, random_pages, to_push, until

# The daemon looks after its disk three times in the span of its watchdog.
OFTEN = ["env", "WATCHDOG_USEC=1500000"]


def state(client):
    return client.status()["state"]


@pytest.mark.parametrize("what", ["segments", "everything", "lock"])
def test_files_that_vanish_are_pages_lost_and_no_more(make_daemon, what):
    daemon = make_daemon(prefix=OFTEN, **{"ram.budget": "1MiB", "disk.budget": "64MiB", "disk.segment": "1MiB"})
    directory = Path(daemon.settings["disk.directory"])
    keys, contents = random_pages(200)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys, contents))
        client.flush()
        on_disk = sum(place == kvtc.Residence.DISK for place in session.lookup(keys).residence)
        assert on_disk > 0
        if what == "everything":
            shutil.rmtree(directory)
        else:
            for file in directory.glob("segment-*" if what == "segments" else "lock"):
                file.unlink()
        # A second one must not come in.
        if what == "lock":
            config = daemon.directory / "second.toml"
            config.write_text(
                (daemon.directory / "kvtcd.toml").read_text().replace(f'"{daemon.socket}"', f'"{daemon.socket}2"')
            )
            second = subprocess.run(
                [daemon.program, "--config", str(config)], capture_output=True, text=True, timeout=60
            )
            assert second.returncode == 1 and "in use by another process" in second.stderr
            until((directory / "lock").exists)
            assert session.fetch(keys) == contents
            return
        until(lambda: client.status()["counters"]["lost"] == on_disk)
        # A directory that is gone is left first and made anew then.
        until(lambda: state(client) == "ready")
        found = session.fetch(keys)
        assert found.count(None) == on_disk and all(a in (b, None) for a, b in zip(found, contents, strict=True))
        lost = [key for key, page in zip(keys, found, strict=True) if page is None]
        again = open_session(client)
        assert all(outcome == kvtc.PushOutcome.STORED for outcome in again.push(
            [page for page in to_push(keys, contents) if page.key in lost]
        ))
        client.flush()
    daemon.restart()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


@pytest.fixture
def small_system(tmp_path):
    """A file system of its own, which can be filled and made read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=40", "none", tmp_path]).returncode != 0:
        pytest.skip("mounting is not possible here")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("how", ["inodes", "blocks", "read-only"])
def test_a_start_on_a_system_that_takes_nothing(make_daemon, small_system, how):
    settings = {"disk.directory": str(small_system / "state"), "disk.budget": "8MiB", "disk.segment": "1MiB"}
    daemon = make_daemon(prefix=OFTEN, **settings)
    keys, contents = random_pages(20)
    with daemon.connect() as client:
        open_session(client).push(to_push(keys[:10], contents))
    assert daemon.stop() == 0
    filling = []
    try:
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", small_system], check=True)
        elif how == "inodes":
            with pytest.raises(OSError):
                for number in range(100):
                    path = small_system / str(number)
                    path.touch()
                    filling.append(path)
        else:
            filling.append(small_system / "filling")
            with pytest.raises(OSError), open(filling[0], "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        daemon.start()
        with daemon.connect() as client:
            assert state(client) == "degraded" and client.status()["state_reason"]
            session = open_session(client)
            # What is there can be read, and what comes stays in RAM.
            assert session.fetch(keys[:10]) == contents[:10]
            session.push(to_push(keys, contents))
            assert session.fetch(keys) == contents
            if how == "read-only":
                subprocess.run(["mount", "-o", "remount,rw", small_system], check=True)
            for path in filling:
                path.unlink()
            until(lambda: state(client) == "ready")
            client.flush()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_system], check=True)
    daemon.restart()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents
    daemon.close()
