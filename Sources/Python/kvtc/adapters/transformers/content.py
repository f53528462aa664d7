"""What a loaded model computes keys and values from, named by content: parameters, adapters in force, configuration."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..weights import model_directory, model_files, weights_digest

_INDIFFERENT = {"_name_or_path", "architectures", "transformers_version", "use_cache"}
"""Of a configuration: what says where a model came from and how it is run."""


class ModelContent:
    """Digests of a model as it is now, made again when a parameter was written to or an adapter switched.

    A write through `.data` is not seen, but where it is an adapter that was merged.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._seen: object = None
        self._digest = b""

    def digest(self) -> bytes:
        """SHA-256 of configuration, parameters and adapters."""
        if (now := self._state()) != self._seen:
            self._digest, self._seen = self._read(), now
        return self._digest

    def _tensors(self) -> list[tuple[str, Any]]:
        return sorted([*self._model.named_parameters(), *self._model.named_buffers()])

    def _state(self) -> object:
        return [(name, tensor.data_ptr(), tensor._version) for name, tensor in self._tensors()], self._adapters()

    def _adapters(self) -> list[str]:
        """Which of PEFT's layers add what, by its own attributes."""
        names = ("active_adapters", "merged_adapters", "disable_adapters")
        layers = ((name, module) for name, module in self._model.named_modules() if hasattr(module, "merged_adapters"))
        return [
            f"{name} {[getattr(module, field, None) for field in names]} {sorted(getattr(module, 'scaling', {}).items())}"
            for name, module in layers
        ]

    def _read(self) -> bytes:
        import torch

        configuration = _named(self._model.config.to_dict())
        digest = hashlib.sha256(json.dumps([configuration, self._adapters()], sort_keys=True, default=str).encode())
        for name, tensor in self._tensors():
            own = tensor.detach()
            digest.update(f"{name} {own.dtype} {tuple(own.shape)}\n".encode())
            digest.update(memoryview(own.contiguous().reshape(-1).view(torch.uint8).cpu().numpy()))
        return digest.digest()


def _named(settings: Any) -> Any:
    """A configuration without what says nothing of the computation; models of several parts have one inside the other."""
    if not isinstance(settings, dict):
        return settings
    return {str(key): _named(value) for key, value in settings.items() if key not in _INDIFFERENT}


def refusal(model: Any) -> str:
    """Why this model's cache is not one of tokens alone; empty where it is."""
    kind = getattr(model, "active_peft_config", None)
    if getattr(kind, "is_prompt_learning", False):
        return "learned prompts of PEFT put cells into the cache that no token is behind"
    if any("dynamic" in kind for kind in _rope_kinds(model.config.get_text_config(decoder=True))):
        return "its rotary embedding changes with the length of the sequence (dynamic), so that no cell is of its tokens alone"
    return ""


def trained_context(config: Any) -> int:
    """The longest sequence whose cells depend on its tokens alone: as long as those of the training, or shorter where longer ones
    turn their keys by other frequencies (LongRoPE)."""
    longest = int(getattr(config, "max_position_embeddings", None) or 1 << 20)
    if "longrope" not in _rope_kinds(config):
        return longest
    parameters = getattr(config, "rope_parameters", None) or {}
    original = parameters.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return min(longest, int(original or longest))


def _rope_kinds(config: Any) -> set[str]:
    rope = getattr(config, "rope_parameters", None) or {}
    return {str(part.get("rope_type")) for part in [rope, *rope.values()] if isinstance(part, dict)}


def files_digest(model: Any) -> bytes:
    """Of the files that the model was loaded from, by which profiles are found; empty where they are not on this machine."""
    try:
        return weights_digest(model_files(model_directory(str(getattr(model, "name_or_path", "")))))
    except ValueError:
        return b""
