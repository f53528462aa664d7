"""What kvtc.calibration.capture says before it begins, and that it does what its options say or refuses them; without a model."""

import json
from dataclasses import dataclass, replace

import pytest

from kvtc.adapters.llama_cpp.state import StateForm, blank_state
from kvtc.calibration import capture
from kvtc.calibration.corpus import Corpus
from kvtc.calibration.texts import Document

from fake_worker import GEOMETRY, HEADER, FakeWorker


@dataclass
class Reader(FakeWorker):
    """Reads text as a token a character."""

    context: int = 4096
    name: str = "reader"
    weights: bytes = bytes(32)

    def tokenize(self, text):
        return [ord(character) for character in text]

    def prefill(self, tokens, progress=None):
        self.state = blank_state(range(len(tokens)), self.state_form)
        for _ in range(0, len(tokens) if progress else 0, 128):
            progress(128)


def corpus(characters=3000):
    learned = [Document(f"learned {index}", "x" * characters) for index in range(4)]
    judged = [Document(f"judged {index}", "y" * characters) for index in range(5)]
    return Corpus("test", lambda _: learned, lambda _: judged)


def positions(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header["positions"]["shape"][0]


def test_size_time_and_memory_are_said_before_anything_is_read(tmp_path, capsys):
    worker = Reader()
    capture.capture_calibration(worker, 4096, tmp_path / "s.safetensors", corpus())
    said = capsys.readouterr().err.splitlines()
    assert "4096 tokens: 1 MB" in said[0] and "minutes" in said[0] and "in memory" in said[0]
    assert "reading calibration texts" in said[1] and len(said) >= 10, "a line every ten percent where there is no terminal"
    assert not any("warning" in line for line in said)


def test_too_few_tokens_for_the_elements_are_warned_of_with_what_they_cost(tmp_path, capsys):
    assert capture.too_few(3680, 11_520) and not capture.too_few(23_040, 11_520)
    text = capture.too_few(3680, 11_520)
    for part in ("3680 tokens", "11520 elements", "2.5 times the distortion", "23040 or more"):
        assert part in text, text
    wide = Reader(geometry=replace(GEOMETRY, layers=60), state_form=StateForm(HEADER, 8, (((24,) * 60, (24,) * 60),)))
    capture.capture_calibration(wide, 4096, tmp_path / "s.safetensors", corpus())
    assert "warning: 4096 tokens for 2880 elements" in capsys.readouterr().err


def test_what_has_no_room_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(capture.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match="4096 tokens take 1 MB.*fewer --tokens"):
        capture.capture_calibration(Reader(), 4096, tmp_path / "s.safetensors", corpus())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tokens", [100, 1000, 2304])
def test_held_out_documents_are_as_long_and_as_many_as_asked_for(tmp_path, tokens):
    paths = capture.capture_held_out(Reader(), 3, tmp_path / "h.safetensors", corpus(), tokens)
    assert [path.name for path in paths] == ["h-00.safetensors", "h-01.safetensors", "h-02.safetensors"]
    assert [positions(path) for path in paths] == [tokens] * 3


def test_options_reach_the_capture_or_are_refused(tmp_path, monkeypatch, capsys):
    seen = []

    class Loaded(Reader):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def open_reader(path, *, context, threads):
        seen.append((context, threads))
        return Loaded(context=context)

    monkeypatch.setattr(capture, "open_reader", open_reader)
    texts = tmp_path / "texts"
    texts.mkdir()
    for index in range(8):
        (texts / f"{index}.txt").write_text(f"{index} says so. " * 400)
    out = tmp_path / "out"
    out.mkdir()
    assert capture.main(["--out", str(out / "h.safetensors"), "--held-out", "1", "--tokens", "700", "--texts", str(texts), "--threads", "3"]) == 0
    assert seen == [(700, 3)] and positions(out / "h-00.safetensors") == 700
    for arguments in (["--held-out", "0"], ["--held-out", "-1"], ["--tokens", "0"], ["--tokens", "many"], ["--tokens", "1000"], ["--threads", "0"]):
        with pytest.raises(SystemExit) as ended:
            capture.main(["--out", str(out / "s.safetensors"), *arguments])
        assert ended.value.code == 2 and arguments[0] in capsys.readouterr().err
    assert len(seen) == 1, "nothing is loaded for options that are refused"
