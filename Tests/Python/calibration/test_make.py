"""`python -m kvtc profile`: a profile in one go."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("tqdm")

from kvtc.calibration import capture, gradients, make
from kvtc.calibration.texts import MissingTexts


@pytest.fixture
def kvtcctl(tmp_path: Path, monkeypatch) -> Path:
    """A kvtcctl that writes down what it is asked for; model, samples and gradients are there without any work."""
    program = tmp_path / "kvtcctl"
    program.write_text(f'#!/bin/sh\necho "$1 $2" >> {tmp_path}/asked\nwhile [ $# -gt 0 ]; do [ "$1" = --out ] && echo profile > "$2"; shift; done\n')
    program.chmod(0o755)
    model = tmp_path / "model.gguf"
    model.write_bytes(b"weights")
    worker = SimpleNamespace(path=model, geometry=SimpleNamespace(rope=SimpleNamespace(base=10_000.0)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(make, "open_reader", lambda model, context, threads: nullcontext(worker))
    monkeypatch.setattr(capture, "capture_calibration", lambda worker, tokens, out, corpus: [Path(f"{tokens}-tokens")])
    monkeypatch.setattr(gradients, "capture_gradients", lambda worker, out, plan, corpus: [Path(f"{plan.documents}-documents")])
    return program


def asked(kvtcctl: Path) -> list[str]:
    return (kvtcctl.parent / "asked").read_text().splitlines()


def test_one_command_makes_and_loads_a_profile(kvtcctl: Path, capsys) -> None:
    out = kvtcctl.parent / "mine.safetensors"
    assert make.main(["--kvtcctl", str(kvtcctl), "--quick", "--out", str(out), "--load"]) == 0
    shown = capsys.readouterr()
    assert out.read_text() == "profile\n" and shown.out == f"{out}\n"
    steps = ["1 of 3: measuring gradients", "2 of 3: reading calibration texts", "3 of 3: making the profile"]
    assert [line.removeprefix("==> ") for line in shown.err.splitlines()] == steps
    calibrate, load = asked(kvtcctl)
    assert calibrate.startswith("calibrate ") and load == "profile load"
    # It is found again, whatever it was named.
    assert make.main(["--kvtcctl", str(kvtcctl), "--quick", "--out", str(kvtcctl.parent / "other.safetensors")]) == 0
    assert "of 3" not in (told := capsys.readouterr().err) and f"kvtcctl profile load {kvtcctl.parent}/other.safetensors" in told
    assert asked(kvtcctl)[2:] == ["profile show"]
    assert sorted(path.name for path in kvtcctl.parent.iterdir() if "safetensors" in path.name) == ["mine.safetensors", "other.safetensors"]


def test_it_is_named_after_the_model(kvtcctl: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(kvtcctl.parent)
    monkeypatch.setenv("KVTCCTL", str(kvtcctl))
    assert make.main(["--quick"]) == 0
    assert Path("model.kvtc.safetensors").is_file() and capsys.readouterr().out == "model.kvtc.safetensors\n"


def test_what_is_missing_is_said_in_a_line(kvtcctl: Path, capsys, monkeypatch) -> None:
    assert make.main(["--kvtcctl", "/nowhere/kvtcctl"]) == 1
    assert capsys.readouterr().err == (
        "kvtc profile: there is no program /nowhere/kvtcctl: install the package kvtcd, or name kvtcctl with --kvtcctl\n"
    )

    def no_texts(*_):
        raise MissingTexts("no text in it")

    monkeypatch.setattr(capture, "capture_calibration", no_texts)
    assert make.main(["--kvtcctl", str(kvtcctl)]) == 1
    assert capsys.readouterr().err.endswith("kvtc profile: no text in it\n")
    kvtcctl.write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(capture, "capture_calibration", lambda *_: [])
    assert make.main(["--kvtcctl", str(kvtcctl), "--out", str(kvtcctl.parent / "none")]) == 1
    assert "kvtcctl calibrate failed" in capsys.readouterr().err
    assert not os.path.exists(kvtcctl.parent / "none")
