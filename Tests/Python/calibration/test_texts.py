"""The demonstration's texts: prose of manuals, and none on both sides."""

import gzip
from pathlib import Path

import pytest

from kvtc.calibration import texts


def test_wrapped_prose_is_joined_and_tables_are_dropped() -> None:
    manual = (
        "Title\n=====\n\nSome words that\nare wrapped.\n\n    Indented words\n    likewise.\n\n"
        "+----+----+\n| a  | b  |\n+----+----+\n\n$ ls\n$ cd /\n"
    )
    assert texts.prose_of(manual) == "Title\n\nSome words that are wrapped.\n\nIndented words likewise.\n\n$ ls\n$ cd /"


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    for name, relative in texts.MANUALS.items():
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("\n\n".join(f"{name} sentence {i} of this manual." for i in range(9000)).encode()))
    return tmp_path


def test_held_out_texts_share_nothing_with_calibration(manuals: Path) -> None:
    calibration, held_out = texts.calibration_documents(28, root=manuals), texts.held_out_documents(5, root=manuals)
    assert (len(calibration), len(held_out)) == (28, 5)
    assert sum(not document.prose for document in calibration) == 5 and all(document.prose for document in held_out)
    assert all(len(document.text) > 10_000 for document in held_out)
    seen = {line for document in calibration for line in document.text.split("\n\n") if line.endswith("manual.")}
    assert not seen & {line for document in held_out for line in document.text.split("\n\n")[:-1]}
    assert calibration == texts.calibration_documents(28, root=manuals)


def test_missing_manuals_are_named(tmp_path: Path) -> None:
    with pytest.raises(texts.MissingTexts, match="deploy/setup --demo"):
        texts.held_out_documents(1, root=tmp_path)
