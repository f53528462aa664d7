"""A profile of the weights that engines read from `model.directory`: made once, by transformers, in minutes."""

from __future__ import annotations

from pathlib import Path

from kvtc.calibration.profile_cache import QUICK, profile_for
from kvtc.calibration.readers import open_reader

from . import model
from .report import Setting


def of(setting: Setting) -> Path:
    """The setting's own; else one of the quick kind, kept in the cache for the next run. Its `weights` are the SHA-256 of
    model.safetensors. An environment that has not torch and transformers raises ImportError, or NoGradients."""
    if setting.profile:
        return setting.profile
    with open_reader(model.directory(setting.gguf)) as worker:
        return profile_for(worker, setting.kvtcctl, QUICK)
