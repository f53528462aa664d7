"""Real English prose (and a little code) from this machine, for calibration and for scoring.

The prose is the text edition of Debian's manuals (packages named in deploy/common.sh), the code Python's standard
library. Which part serves what is fixed by position: the first four fifths of a manual may be calibrated on, only
what follows is held out, so no held-out sentence was ever seen by a profile.
"""

from __future__ import annotations

import gzip
import re
import sysconfig
import textwrap
from dataclasses import dataclass
from pathlib import Path

MANUALS = {
    "debian-policy": "doc/debian-policy/policy.txt.gz",
    "developers-reference": "developers-reference/developers-reference.txt.gz",
    "debian-reference": "debian-reference/debian-reference.en.txt.gz",
    "maint-guide": "doc/maint-guide/maint-guide.en.txt.gz",
    "debian-faq": "doc/debian/FAQ/debian-faq.en.txt.gz",
}
MODULES = ("argparse", "ast", "asyncio/base_events", "configparser", "dataclasses", "difflib", "email/message", "heapq")
SPAN = 14_000
"""Characters of one document: more than 2304 tokens of prose."""
_CALIBRATION_BEGIN = 0.06  # behind the tables of contents
_CALIBRATION_END = 0.80
_HELD_OUT_BEGIN = 0.82


class MissingTexts(RuntimeError):
    """The documentation packages are not installed."""


@dataclass(frozen=True)
class Document:
    """A stretch of text beginning at a paragraph; `name` says where it is from."""

    name: str
    text: str

    @property
    def prose(self) -> bool:
        return self.name.partition("@")[0] in MANUALS


def calibration_documents(count: int, *, root: Path = Path("/usr/share")) -> list[Document]:
    """`count` documents to calibrate on: four of five prose, every fifth code, manuals in turn."""
    manuals = {name: _manual(root, path) for name, path in MANUALS.items()}
    prose_count, code_count = count - count // 5, count // 5
    prose = [
        _span(name, manuals[name], _CALIBRATION_BEGIN + (_CALIBRATION_END - _CALIBRATION_BEGIN) * turn / turns, _CALIBRATION_END)
        for turns in [-(-prose_count // len(manuals))]
        for turn in range(turns)
        for name in manuals
    ][:prose_count]
    code = [
        _span(module, text, 0.1 + 0.6 * (index // len(MODULES)) / max(1, code_count // len(MODULES)), 1.0)
        for index in range(code_count)
        for module in [MODULES[index % len(MODULES)]]
        for text in [_module(module)]
    ]
    mixed: list[Document] = []
    for index in range(count):
        from_code = index % 5 == 4 and code
        mixed.append(code.pop(0) if from_code else prose.pop(0))
    return mixed


def held_out_documents(count: int, *, root: Path = Path("/usr/share")) -> list[Document]:
    """`count` prose documents that calibration never sees, manuals in turn."""
    names = list(MANUALS)
    turns = -(-count // len(names))
    return [
        _span(name, _manual(root, MANUALS[name]), _HELD_OUT_BEGIN + 0.1 * turn / turns, 1.0)
        for turn in range(turns)
        for name in names
    ][:count]


def _manual(root: Path, path: str) -> str:
    try:
        raw = gzip.decompress((root / path).read_bytes()).decode("utf-8", "replace")
    except OSError as error:
        raise MissingTexts(f"no text at {root / path}: run deploy/setup --demo ({error.strerror})") from error
    return prose_of(raw)


def _module(name: str) -> str:
    return (Path(sysconfig.get_paths()["stdlib"]) / f"{name}.py").read_text("utf-8")


def _span(name: str, text: str, fraction: float, end: float) -> Document:
    """At most `SPAN` characters from the paragraph after `fraction` of the text, none from beyond `end`."""
    limit = int(len(text) * end)
    start = text.find("\n\n", min(int(len(text) * fraction), max(0, limit - SPAN))) + 2
    return Document(f"{name}@{start}", text[start : min(start + SPAN, limit)])


_NOT_PROSE = re.compile(r"^[\W_]*$|[-=+|─━│]{4,}|\|.*\|")


def prose_of(text: str) -> str:
    """Undoes the manual's line wrapping and drops tables and rules; indented listings keep their lines."""
    paragraphs: list[str] = []
    for block in re.split(r"\n\s*\n", text.replace("\r", "").replace("\u00a0", " ")):
        lines = [line.rstrip() for line in block.split("\n") if not _NOT_PROSE.search(line)]
        lines = textwrap.dedent("\n".join(line for line in lines if line)).split("\n")
        if lines == [""]:
            continue
        listing = any(line.startswith((" ", "\t", "$ ", "# ")) for line in lines[:1] + lines[2:])
        paragraphs.append("\n".join(lines) if listing else " ".join(line.strip() for line in lines))
    return "\n\n".join(paragraphs)
