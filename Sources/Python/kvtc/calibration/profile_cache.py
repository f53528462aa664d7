"""Profiles calibrated for a model and texts, kept in the user's cache directory for the next run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..adapters.transformers.worker import TransformersWorker
from ..digests import file_digest
from . import capture, gradients, sensitivity
from .corpus import Corpus, demo
from .gradient_model import NoGradients
from .progress import Phases, say
from .readers import Reader

_EDITION = 4
"""Raised when what calibration reads or does changes, so that a profile of before is not used again."""

OURS, PUBLISHED = "ours", "published"
"""How errors are weighed: by what they cost the model, keys and values together; or all alike on two bases, as published."""


@dataclass(frozen=True)
class Effort:
    """What a profile is made from: `tokens` of text, gradients of `documents`, and the strongest `rank` components (None: as
    many as ratios from 8 need)."""

    tokens: int = capture.DEFAULT_TOKENS
    documents: int = gradients.Plan.documents
    rank: int | None = None

    @property
    def is_quick(self) -> bool:
        """Whether it leaves out what raises quality, so that its profile stands apart from all others."""
        return self.rank is not None or self.documents < gradients.Plan.documents


THOROUGH = Effort()
QUICK = Effort(tokens=14_336, documents=4, rank=2560)
"""A fifth of the work. The components are those that SmolLM2 has bits for from 32 times on; see Measurements.md for what all of it costs."""


class CalibrationFailed(RuntimeError):
    """kvtcctl made no profile; it has said why on standard error."""


def cache_directory() -> Path:
    """`~/.cache/kvtc`, or where XDG_CACHE_HOME says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc"


def profile_for(worker: Reader, kvtcctl: Path, effort: Effort, phases: Phases | None = None) -> Path:
    """The demo's profile: cached, or calibrated now."""
    return profiles_for(worker, kvtcctl, effort, demo(), [OURS], phases)[OURS]


def profiles_for(
    worker: Reader,
    kvtcctl: Path,
    effort: Effort,
    corpus: Corpus,
    weightings: Sequence[str],
    phases: Phases | None = None,
) -> dict[str, Path]:
    """A profile for each weighting. What is not cached is calibrated, all from one set of samples of the corpus.

    A cached profile is found by what it depends on: model file, engine, calibration texts, effort. Quick ones have a directory
    of their own, because benchmarks take what they find in the other.
    """
    phases = phases or Phases()
    directory = cache_directory() / "profiles" / ("quick" if effort.is_quick else "")
    directory.mkdir(parents=True, exist_ok=True)
    size = f"{effort.tokens // 1024}k{'-quick' if effort.is_quick else ''}"
    stem = f"{worker.path.stem}-{size}-{_identity(worker, corpus, effort)}"
    names = {OURS: f"{stem}.kvtc.safetensors", PUBLISHED: f"{stem}.published.kvtc.safetensors"}
    profiles = {weighting: directory / names[weighting] for weighting in weightings}
    missing = {weighting: path for weighting, path in profiles.items() if not _readable(path, kvtcctl)}
    if not missing:
        return profiles
    with tempfile.TemporaryDirectory(prefix="samples-", dir=directory) as samples:
        arguments = {PUBLISHED: ["--published"]}
        if OURS in missing:
            with phases.phase("measuring gradients"):
                arguments[OURS] = _weighting(worker, corpus, effort, Path(samples))
        with phases.phase("reading calibration texts"):
            shards = capture.capture_calibration(worker, effort.tokens, Path(samples) / "samples.safetensors", corpus)
        rank = ["--rank", str(effort.rank)] if effort.rank else []
        with phases.phase("making the profile"):
            for weighting, path in missing.items():
                command = ["calibrate", *map(str, shards), *arguments[weighting], *rank, "--out", str(path)]
                if not _run(kvtcctl, command):
                    raise CalibrationFailed("kvtcctl calibrate failed")
    return profiles


def _weighting(worker: Reader, corpus: Corpus, effort: Effort, directory: Path) -> list[str]:
    """What errors cost the model: by its gradients, or where this program can't differentiate it, by trial."""
    try:
        plan = gradients.Plan(documents=effort.documents)
        shards = gradients.capture_gradients(worker, directory / "gradients.safetensors", plan, corpus)
        return ["--gradients", *map(str, shards)]
    except NoGradients as reason:
        say(f"{reason}; measuring each layer's sensitivity instead")
    weights = directory / "sensitivity.json"
    weights.write_text(json.dumps(sensitivity.measure(worker, sensitivity.Plan(), corpus)))
    return ["--sensitivity", str(weights)]


def _readable(profile: Path, kvtcctl: Path) -> bool:
    return profile.exists() and _run(kvtcctl, ["profile", "show", str(profile)], quiet=True)


def _identity(worker: Reader, corpus: Corpus, effort: Effort) -> str:
    """Names what a profile depends on: the model file, the engine, the texts and how much of them is taken how."""
    if isinstance(worker, TransformersWorker):
        engine, model = worker.engine, worker.weights.hex()
    else:
        engine, model = _version("xllamacpp") or os.environ.get("KVTC_LLAMA_LIBRARY", ""), file_digest(worker.path).hex()
    rope = [] if worker.geometry.rope.base is not None else ["measured frequencies"]
    words = [str(_EDITION), engine, model, *([corpus.identity] if corpus.identity else []), *rope]
    # One of all gradients and components is named by its thousands of tokens.
    words += [repr(effort)] if effort.is_quick or effort.tokens % 1024 else []
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _run(kvtcctl: Path, arguments: list[str], quiet: bool = False) -> bool:
    # Standard output is for the tables of the caller; its progress and what went wrong come on standard error.
    errors = subprocess.DEVNULL if quiet else None
    command = [str(kvtcctl), *arguments]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors, check=False).returncode == 0
