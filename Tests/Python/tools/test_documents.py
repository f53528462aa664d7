"""What the documents point at is there: links, the headings they name, and files named in the text."""

import re

import pytest

from conftest import ROOT

DOCUMENTS = sorted(
    path
    for part in (ROOT, ROOT / ".github", ROOT / "Sources", ROOT / "Tests")
    for path in (part.glob("*.md") if part == ROOT else part.rglob("*.md"))
)
# A file or folder of the repository, as it stands in the text; what follows a blank are its arguments.
NAMED = re.compile(r"`((?:\.ci|\.github|Config|Sources|Tests|deploy)/[\w./+-]+)[^`]*`")
# A source file by the end of its path, or by its name alone as Swift's extensions are: `Store+Read`.
SOURCE = re.compile(r"`([\w/+-]+\.(?:swift|c|h|md)|[A-Z]\w*\+[A-Z]\w*)`")
SOURCES = {f"/{path.relative_to(ROOT)}" for part in ("Sources", "Tests") for path in (ROOT / part).rglob("*.*")}


def text(path):
    return path.read_text(encoding="utf-8")


def anchors(path):
    """The names that a page gives its headings."""
    headings = re.findall(r"^#+ +(.*)$", text(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def faults(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(path)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        # DocC knows pictures by their name alone.
        if not there.exists() and not (path.parent / "Resources" / file).exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(there):
            yield f"{target}: no such heading"
    for name in NAMED.findall(text(path)):
        if not (ROOT / name).exists():
            yield f"`{name}`: no such file"
    for name in SOURCE.findall(text(path)):
        if not any(source.endswith((f"/{name}", f"/{name}.swift")) for source in SOURCES):
            yield f"`{name}`: no such source file"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere_and_files_named_are_there(path):
    assert list(faults(path)) == []


def test_what_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    good = "# A page: it\n[a](#a-page-it) [b](https://b) `deploy/test --help` `Store+Read` `KVTCStore/Store.swift`\n"
    page.write_text(good)
    assert list(faults(page)) == []
    page.write_text(good + "[c](#c) [d](none.md) [e](page.md#e) `deploy/none --help` `Store+None` `KVTCCodec/Store.swift`\n")
    assert list(faults(page)) == [
        "#c: no such heading", "none.md: no such file", "page.md#e: no such heading", "`deploy/none`: no such file",
        "`Store+None`: no such source file", "`KVTCCodec/Store.swift`: no such source file",
    ]
