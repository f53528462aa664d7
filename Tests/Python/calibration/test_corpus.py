"""The split of texts into what a profile learns from and what it is judged on."""

from pathlib import Path

import pytest

from kvtc.calibration import corpus
from kvtc.calibration.texts import MissingTexts


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def lines(name: str, count: int) -> str:
    return "".join(f"{name} line {i}\n" for i in range(count))


def words(documents) -> set[str]:
    return {line for document in documents for line in document.text.splitlines()}


@pytest.mark.parametrize("files", [1, 3, 4, 40])
def test_no_line_is_on_both_sides_and_both_have_some(tmp_path: Path, files: int) -> None:
    root = write(tmp_path, {f"{i}.txt": lines(f"file{i}", 900) for i in range(files)})
    split = corpus.of_paths([root], span=4000)
    calibration, evaluation = split.calibration(100), split.evaluation(100)
    assert calibration and evaluation
    # A file that is cut inside may be cut inside a line.
    assert not {line for line in words(calibration) & words(evaluation) if " line " in line}
    if files >= 4:
        assert not {d.name.partition("@")[0] for d in calibration} & {d.name.partition("@")[0] for d in evaluation}
    size = sum(len(d.text) for d in evaluation) / sum(len(d.text) for d in calibration + evaluation)
    assert 0.1 < size < 0.4


def test_the_split_depends_on_content_alone(tmp_path: Path) -> None:
    texts = {f"{i}.txt": lines(f"file{i}", 300) for i in range(8)}
    one = write(tmp_path / "one", texts)
    other = write(tmp_path / "other", {f"renamed/{7 - i}.md": text for i, text in enumerate(texts.values())})
    first, second = corpus.of_paths([one]), corpus.of_paths([other])
    assert [d.text for d in first.evaluation(8)] == [d.text for d in second.evaluation(8)]
    assert first.identity == second.identity
    (one / "8.txt").write_text(lines("new", 300))
    assert corpus.of_paths([one]).identity != first.identity


def test_copies_count_once_and_never_land_on_the_other_side(tmp_path: Path) -> None:
    root = write(tmp_path, {f"{i}.txt": lines(f"file{i % 4}", 300) for i in range(12)})
    split = corpus.of_paths([root])
    assert len(split.calibration(12)) + len(split.evaluation(12)) == 4


def test_texts_to_calibrate_on_may_be_named_apart(tmp_path: Path) -> None:
    known = write(tmp_path / "known", {"a": lines("known", 200), "b": lines("both", 200)})
    judged = write(tmp_path / "judged", {"c": lines("judged", 200), "d": lines("both", 200)})
    split = corpus.of_paths([judged], [known])
    assert [d.name for d in split.evaluation(9)] == ["c"] and {d.name for d in split.calibration(9)} == {"a", "b"}
    with pytest.raises(MissingTexts, match="name other files"):
        corpus.of_paths([known], [known])


def test_hidden_and_binary_files_are_passed_over_in_directories_and_refused_by_name(tmp_path: Path) -> None:
    root = write(tmp_path, {f"{i}.txt": lines(f"file{i}", 300) for i in range(4)} | {".git/x": lines("hidden", 300)})
    (root / "image").write_bytes(b"\x89PNG\xff")
    (root / "zeros").write_bytes(b"text\0text")
    assert set(corpus.read([root])) == {f"{i}.txt" for i in range(4)}
    for name in ("image", "zeros"):
        with pytest.raises(MissingTexts, match=f"{name} is not UTF-8 text"):
            corpus.of_paths([root / name])
    with pytest.raises(FileNotFoundError):
        corpus.of_paths([root / "missing"])


def test_a_file_gives_documents_in_turn_with_the_others(tmp_path: Path) -> None:
    root = write(tmp_path, {"long": lines("long", 4000)} | {f"{i}": lines(f"short{i}", 300) for i in range(5)})
    documents = corpus.of_paths([root], [write(tmp_path / ".other", {"x": lines("x", 300)})], span=4000).evaluation(9)
    assert len({d.name.partition("@")[0] for d in documents[:6]}) == 6
    long = "".join(d.text for d in documents if d.name.partition("@")[0] == "long")
    assert len(long) > 20_000 and lines("long", 4000).startswith(long)


def test_sensitivity_prefers_prose() -> None:
    documents = [corpus.Document(f"argparse@{i}", "code") for i in range(3)] + [corpus.Document("debian-faq@7", "prose")]
    chosen = corpus.Corpus("mixed", lambda _: documents, lambda _: []).for_sensitivity(2)
    assert [d.text for d in chosen] == ["prose", "code"]


def test_domains_of_the_shift_report_are_what_they_say() -> None:
    code = corpus.code()
    assert all("def " in d.text or "import" in d.text or "class " in d.text for d in code.evaluation(5)[:5])
    assert sum(len(d.text) for d in code.calibration(28)) > 28 * 8000
