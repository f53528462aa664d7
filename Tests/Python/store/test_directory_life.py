"""The directory of a disk tier over its life: copied while the daemon runs, moved elsewhere, given more room and less."""

import shutil
from pathlib import Path

from samples import open_session, random_pages, to_push


def found(daemon, keys):
    with daemon.connect() as client:
        return open_session(client).fetch(keys)


def test_a_copy_made_while_it_runs_has_what_was_flushed(make_daemon, tmp_path):
    daemon = make_daemon(**{"disk.segment": "1MiB"})
    directory = Path(daemon.settings["disk.directory"])
    keys, contents = random_pages(60)
    with daemon.connect() as client:
        session = open_session(client)
        session.push(to_push(keys[:40], contents[:40]))
        client.flush()
        # Half of what is copied is there before, and half is written meanwhile.
        session.push(to_push(keys, contents)[40:])
        copied = 0

        def copy(source, target):
            nonlocal copied
            if copied == 1:
                client.flush()
            copied += 1
            return shutil.copy2(source, target)

        backup = tmp_path / "backup"
        shutil.copytree(directory, backup, copy_function=copy)
        assert copied > 1
    restored = make_daemon(**{"disk.directory": str(backup)})
    pages = found(restored, keys)
    assert pages[:40] == contents[:40]
    assert all(page in (None, content) for page, content in zip(pages[40:], contents[40:], strict=True))
    # The one that was copied goes on as if nothing had been.
    assert found(daemon, keys) == contents


def test_a_directory_is_moved_grows_and_shrinks(make_daemon):
    daemon = make_daemon(**{"ram.budget": "1MiB", "disk.budget": "8MiB", "disk.segment": "1MiB"})
    keys, contents = random_pages(160)

    def restart(**settings):
        assert daemon.stop() == 0, daemon.log.read_text()
        daemon.settings |= settings
        daemon.start()

    with daemon.connect() as client:
        open_session(client).push(to_push(keys, contents))
    elsewhere = daemon.directory / "other" / "pages"
    assert daemon.stop() == 0
    elsewhere.parent.mkdir()
    shutil.move(daemon.settings["disk.directory"], elsewhere)
    daemon.settings["disk.directory"] = str(elsewhere)
    daemon.start()
    assert found(daemon, keys) == contents
    restart(**{"disk.budget": "64MiB"})
    assert found(daemon, keys) == contents
    # What has no room any more is gone, which is what was pushed first; the rest is whole.
    restart(**{"disk.budget": "2MiB"})
    pages = found(daemon, keys)
    assert all(page in (None, content) for page, content in zip(pages, contents, strict=True))
    with daemon.connect() as client:
        disk = client.status()["tiers"]["disk"]
    assert disk["used"] <= disk["budget"] == 2 << 20
    assert 0 < pages.count(None) < len(pages)
    restart(**{"disk.budget": "64MiB"})
    assert found(daemon, keys) == pages
