"""What a model's `forward` takes, which differs from release to release and from model to model."""

from __future__ import annotations

import inspect
from typing import Any


def takes(model: Any, name: str) -> bool:
    """Whether `forward` has an argument of that name."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(type(base).forward).parameters


def cache_argument(model: Any) -> str:
    """What the cache is called: `cache`, or `past_key_values` before release 5.24."""
    return "cache" if takes(model, "cache") else "past_key_values"
