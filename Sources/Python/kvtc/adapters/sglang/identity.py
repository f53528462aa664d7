"""What the pages of one of SGLang's ranks depend on besides the tokens: weights, how they are loaded, the cache's type, the rank."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...digests import file_digest
from ...identity import Identity
from ..options import Options
from ..weights import model_directory, model_files, weights_digest

log = logging.getLogger("kvtc")

_ARGUMENTS = ("quantization", "dtype", "kv_cache_dtype", "json_model_override_args", "load_format")
"""Of SGLang's arguments, those that change K and V of the same weights."""


@dataclass(frozen=True)
class Origin:
    """``weights``: the digest of the model's files, by which a profile is found."""

    identity: Identity
    weights: bytes


def origin(options: Options, config: Any, pool: Any) -> Origin:
    """Raises ValueError, in a sentence, where the weights cannot be told."""
    arguments = _arguments()
    model = options.model or str(getattr(arguments, "model_path", "") or "")
    if not model:
        raise ValueError("kvtc cannot tell which weights SGLang serves: name their directory by the option 'model'")
    directory = model_directory(model, getattr(arguments, "revision", None))
    weights = weights_digest(model_files(directory))
    extra: dict[str, str | bytes | float] = {"engine": "sglang", "format": str(getattr(pool, "storage_format_tag", None) or "")}
    for name in _ARGUMENTS:
        extra[name] = json.dumps(getattr(arguments, name, None), default=str, sort_keys=True)
    for name, file in (
        ("config", directory / "config.json"),
        ("scales", Path(getattr(arguments, "quantization_param_path", None) or "")),
    ):
        if file.is_file():
            extra[name] = file_digest(file)
    # SGLang names the adapters that it starts with by their paths, in which others may lie tomorrow; those loaded later by a number
    # that is drawn.
    for path in _adapter_paths(getattr(arguments, "lora_paths", None)):
        extra[f"adapter {path}"] = weights_digest(model_files(model_directory(path)))
    identity = Identity(weights, kv_type=str(pool.dtype), part=rank_name(config), salt=options.salt, extra=extra)
    return Origin(identity, weights)


def rank_name(config: Any) -> str:
    """The rank's part of a page. Ranks of a model with latent attention all have the same one, but for those that split the context."""
    parts = [] if config.is_mla_model else [f"tp{config.tp_rank}/{config.tp_size}"]
    if config.pp_size > 1:
        parts.append(f"pp{config.pp_rank}/{config.pp_size}")
    if config.attn_cp_size > 1:
        parts.append(f"cp{config.attn_cp_rank}/{config.attn_cp_size}")
    return " ".join(parts)


def _adapter_paths(given: Any) -> list[str]:
    """The paths in SGLang's ``--lora-paths``, in whichever of its forms. Raises ValueError for another."""
    if not given:
        return []
    if isinstance(given, Mapping) and "lora_path" not in given:
        return [path for item in given.values() for path in _adapter_paths(item)]
    if isinstance(given, Mapping):
        return [str(given["lora_path"])]
    if isinstance(given, str):
        return [given.partition("=")[2] or given]
    if isinstance(given, Sequence):
        return [path for item in given for path in _adapter_paths(item)]
    if path := getattr(given, "lora_path", None):
        return [str(path)]
    raise ValueError(f"kvtc cannot tell which LoRA adapter {given!r} is")


def _arguments() -> Any:
    """SGLang's arguments as this process has them; None where it has none."""
    try:
        return import_module("sglang.srt.runtime_context").get_server_args()
    except Exception as error:
        log.debug("SGLang's arguments are not to be had: %s", error)
        return None
