"""What vLLM's K and V depend on besides a request: the model as it was loaded, and which part of it a worker is."""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...digests import file_digest
from ...identity import Identity
from ..weights import model_directory, model_files, weights_digest

log = logging.getLogger("kvtc")

_NOT_MEANT = ("_name_or_path", "name_or_path", "transformers_version")
"""Of a model's configuration: what says nothing of its numbers."""


def loaded_weights(vllm_config: Any, model: str = "") -> bytes:
    """The content of the model's weights. ``model``: where they lie, if vLLM's name of it does not say.

    Raises ValueError for weights that are in no file. Large models are read once and remembered by their files' times.
    """
    load_format = str(getattr(vllm_config.load_config.load_format, "value", vllm_config.load_config.load_format))
    if load_format == "dummy":
        raise ValueError("weights that vLLM makes up (load_format dummy) have no name")
    config = vllm_config.model_config
    files = model_files(model_directory(model or config.model_weights or config.model, config.revision))
    log.info("kvtc reads the weights of %s to name them by their content (once, until they change)", config.model)
    with ThreadPoolExecutor(8) as pool:
        # Later calls find what these remember; hashing does not hold the interpreter.
        list(pool.map(_read, files))
    return weights_digest(files)


def _read(file: Any) -> None:
    try:
        file_digest(file)
    except OSError:
        # The digest of all files says so.
        return


def part_identity(
    vllm_config: Any,
    weights: bytes,
    group: int,
    groups: int,
    scales: dict[str, tuple[float, float]],
    state: str,
    salt: str,
) -> Identity:
    """Of one worker's group of layers. ``scales``: by layer, of a cache whose numbers have to be multiplied. ``state``: what the bytes are
    where a state is kept instead of K and V."""
    config, cache, parallel = vllm_config.model_config, vllm_config.cache_config, vllm_config.parallel_config
    ranks = f"tp{rank(vllm_config)[1]}/{parallel.tensor_parallel_size} pp{rank(vllm_config)[0]}/{parallel.pipeline_parallel_size}"
    return Identity(
        weights,
        kv_type=str(cache.cache_dtype),
        kv_scales={layer: list(pair) for layer, pair in scales.items()} or None,
        part=f"{ranks} group{group}/{groups}",
        salt=salt,
        extra={
            "engine": "vllm",
            "dtype": str(config.dtype),
            "quantization": str(config.quantization or ""),
            "configuration": _configuration(config),
            **({"state": state} if state else {}),
        },
    )


def rank(vllm_config: Any) -> tuple[int, int]:
    """Of this worker: of the pipeline, and of the tensors' parts within it."""
    parallel = vllm_config.parallel_config
    stage, within = divmod(parallel.rank, parallel.tensor_parallel_size)
    return stage % parallel.pipeline_parallel_size, within


def _configuration(config: Any) -> bytes:
    """The model's configuration with what the command line changed of it, such as RoPE."""
    content = {key: value for key, value in config.hf_config.to_dict().items() if key not in _NOT_MEANT}
    rope = str(content.get("rope_parameters") or content.get("rope_scaling") or "")
    # Frequencies of such models depend on whether longer sequences are allowed than those of their training.
    longest = config.max_model_len if "longrope" in rope or "dynamic" in rope else 0
    return hashlib.sha256(json.dumps([content, longest], sort_keys=True, default=str).encode()).digest()
