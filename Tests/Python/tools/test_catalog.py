"""What the journal is told of errors: each has an id, and the catalog says what to do about it."""

import re
import shutil
import subprocess

import pytest

from conftest import ROOT

CATALOG = ROOT / "deploy/systemd/kvtcd.catalog"
MESSAGE = r'"((?:[^"\\]|\\.)*)"'
# Calls whose level an operator looks at; the message comes first.
LOGGED = re.compile(r"log\.(?:notice|warning|error|critical)\(\s*" + MESSAGE)
LEVELLED = re.compile(r"LogEntry\(\s*\.(?:notice|warning|error|critical),\s*" + MESSAGE)


def ids():
    text = (ROOT / "Sources/KVTCDaemon/Observability/LogCatalog.swift").read_text()
    return dict(re.findall(MESSAGE + r':\s*"([0-9a-f]{32})"', text))


def entries():
    return {part[:32]: part[33:] for part in CATALOG.read_text().split("\n-- ")[1:]}


def test_catalog_and_code_have_the_same_ids():
    assert len(set(ids().values())) == len(ids())
    assert set(entries()) == set(ids().values())


def test_every_error_has_an_id():
    sources = [path.read_text() for part in ("KVTCDaemon", "kvtcd") for path in (ROOT / "Sources" / part).rglob("*.swift")]
    messages = {match for text in sources for pattern in (LOGGED, LEVELLED) for match in pattern.findall(text)}
    assert len(messages) > 25
    assert messages <= set(ids())
    # And none that is never told.
    told = "".join(sources)
    assert [message for message in ids() if told.count(f'"{message}"') < 2] == []


@pytest.mark.skipif(not shutil.which("journalctl"), reason="needs journalctl")
def test_the_journal_takes_the_catalog(tmp_path):
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, place)
    subprocess.run(["journalctl", "--update-catalog", f"--root={tmp_path}"], check=True)
    listed = subprocess.run(["journalctl", "--list-catalog", f"--root={tmp_path}"], check=True, capture_output=True, text=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == set(entries())
    for text in entries().values():
        subject, _, body = text.partition("\n\n")
        assert subject.startswith("Subject: ") and len(body.split()) >= 5
