"""Which profile is found again: one made quickly is never taken for another."""

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("tqdm")

from kvtc.calibration import capture, gradients, profile_cache
from kvtc.calibration.profile_cache import OURS, PUBLISHED, QUICK, THOROUGH, Effort, profile_for, profiles_for
from kvtc.calibration.progress import Phases


@pytest.fixture
def calibrations(tmp_path: Path, monkeypatch) -> list[list[str]]:
    """The arguments of each `kvtcctl calibrate`; samples and gradients are named after how much of them was asked for."""
    done: list[list[str]] = []

    def kvtcctl(_: Path, arguments: list[str], quiet: bool = False) -> bool:
        if arguments[0] == "calibrate":
            done.append(arguments)
            Path(arguments[arguments.index("--out") + 1]).write_text("profile")
        return True

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profile_cache, "_run", kvtcctl)
    monkeypatch.setattr(capture, "capture_calibration", lambda worker, tokens, out, corpus: [Path(f"{tokens}-tokens")])
    monkeypatch.setattr(gradients, "capture_gradients", lambda worker, out, plan, corpus: [Path(f"{plan.documents}-documents")])
    return done


@pytest.fixture
def worker(tmp_path: Path) -> SimpleNamespace:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"weights")
    return SimpleNamespace(path=model, geometry=SimpleNamespace(rope=SimpleNamespace(base=10_000.0)))


def test_a_quick_profile_is_never_taken_for_another(worker, calibrations, tmp_path: Path) -> None:
    efforts = [
        QUICK, THOROUGH, Effort(QUICK.tokens), Effort(QUICK.tokens, QUICK.documents), Effort(QUICK.tokens, rank=QUICK.rank),
        Effort(THOROUGH.tokens + 1),
    ]
    paths = [profile_for(worker, Path("kvtcctl"), effort) for effort in efforts]
    assert len(set(paths)) == len(efforts) == len(calibrations)
    # What looks for any profile among the thorough ones finds no other, and no name hides what it is.
    found = set((tmp_path / "cache/kvtc/profiles").glob("*.kvtc.safetensors"))
    assert found == {path for path, effort in zip(paths, efforts) if not effort.is_quick}
    assert all(("quick" in path.name) == effort.is_quick for path, effort in zip(paths, efforts))


def test_a_profile_is_made_once_from_as_much_as_was_asked_for(worker, calibrations) -> None:
    phases = Phases()
    path = profile_for(worker, Path("kvtcctl"), QUICK, phases)
    assert list(phases.seconds) == ["measuring gradients", "reading calibration texts", "making the profile"]
    assert profile_for(worker, Path("kvtcctl"), QUICK) == path
    (arguments,) = calibrations
    wanted = [f"{QUICK.tokens}-tokens", "--gradients", f"{QUICK.documents}-documents", "--rank", str(QUICK.rank), "--out", str(path)]
    assert arguments == ["calibrate", *wanted]


def test_a_thorough_profile_keeps_what_ratios_need(worker, calibrations) -> None:
    profiles = profiles_for(worker, Path("kvtcctl"), THOROUGH, profile_cache.demo(), [OURS, PUBLISHED])
    assert all("--rank" not in arguments for arguments in calibrations) and len(set(profiles.values())) == 2
    assert [("--published" in arguments, "16-documents" in arguments) for arguments in calibrations] == [(False, True), (True, False)]


def test_another_model_of_the_same_name_has_another_profile(worker, calibrations) -> None:
    first = profile_for(worker, Path("kvtcctl"), QUICK)
    worker.path.write_bytes(b"other weights")
    assert profile_for(worker, Path("kvtcctl"), QUICK) != first
