"""The demo's profile: calibrated once for a model and kept in the user's cache directory."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import tempfile
from pathlib import Path

from . import capture, sensitivity
from .demo_daemon import DaemonFailed
from .llama_model import LlamaWorker

_EDITION = 1
"""Raised when what calibration reads or does changes, so that a profile of before is not used again."""


def cache_directory() -> Path:
    """`~/.cache/kvtc`, or where XDG_CACHE_HOME says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc"


def profile_for(worker: LlamaWorker, kvtcctl: Path, tokens: int) -> Path:
    """The cached profile, or a new one: captures samples, measures sensitivity, has kvtcctl calibrate."""
    directory = cache_directory() / "profiles"
    directory.mkdir(parents=True, exist_ok=True)
    identity = _identity(worker)
    name = f"{worker.path.stem}-{tokens // 1024}k-{identity}"
    profile = directory / f"{name}.kvtc.safetensors"
    if profile.exists() and _run(kvtcctl, ["profile", "show", str(profile)], quiet=True):
        return profile
    weights = directory / f"{worker.path.stem}-{identity}.sensitivity.json"
    if not weights.exists():
        result = sensitivity.measure(worker, sensitivity.Plan())
        partial = weights.with_suffix(".partial")
        partial.write_text(json.dumps(result))
        partial.replace(weights)
    with tempfile.TemporaryDirectory(prefix="samples-", dir=directory) as samples:
        shards = capture.capture_calibration(worker, tokens, Path(samples) / "samples.safetensors")
        arguments = ["calibrate", *map(str, shards), "--sensitivity", str(weights), "--out", str(profile)]
        if not _run(kvtcctl, arguments):
            raise DaemonFailed("kvtcctl calibrate failed")
    return profile


def _identity(worker: LlamaWorker) -> str:
    """Names what the samples depend on: the model file, the engine and how they are taken."""
    engine = _version("xllamacpp") or os.environ.get("KVTC_LLAMA_LIBRARY", "")
    with worker.path.open("rb") as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{_EDITION} {engine} {model}".encode()).hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _run(kvtcctl: Path, arguments: list[str], quiet: bool = False) -> bool:
    # What it prints is progress here, and standard output is the demo's table.
    output = subprocess.DEVNULL if quiet else 2
    return subprocess.run([kvtcctl, *arguments], stdout=output, stderr=output, check=False).returncode == 0
