"""The llama C API of a prebuilt library, by ctypes.

Only what moving a KV cache needs is bound. Structs are laid out as the pinned release of PyPI's `xllamacpp` has
them (requirements-llama.txt); `LlamaLibrary` compares the library's default parameters with what that layout must
show and refuses a library of another layout, because a wrong offset would not fail but compute something else.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine import EngineError


class LlamaError(EngineError):
    """llama.cpp refused something, or is not the release this binding knows."""


class ContextParams(ctypes.Structure):
    """`llama_context_params`. The tail is carried along as the library filled it in."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("unnamed", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn", c_float * 4),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("tail", c_uint8 * 144),
    ]


class ModelParams(ctypes.Structure):
    """`llama_model_params`. The defaults are what we want, so nothing after the first fields is named."""

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("tail", c_uint8 * 232),
    ]


class Batch(ctypes.Structure):
    """`llama_batch`: parallel arrays of `n_tokens` entries."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


F16 = 1
CACHE_TYPES = {"f16": F16, "q4_0": 2, "q8_0": 8}
"""ggml's numbers of the element types a cache may have."""
CACHE_BYTES = {"f16": 2, "q4_0": 18 / 32, "q8_0": 34 / 32}
"""Bytes of an element: ggml's blocks hold 32, and a scale."""
FLASH_ATTENTION_ON = 1

_LOG = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)

_SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [_LOG, c_void_p]),
    "llama_print_system_info": (c_char_p, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_adapter_lora_init": (c_void_p, [c_void_p, c_char_p]),
    "llama_set_adapters_lora": (c_int32, [c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float)]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_n_head": (c_int32, [c_void_p]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_model_rope_type": (c_int32, [c_void_p]),
    "llama_model_meta_val_str": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_vocab_is_eog": (c_bool, [c_void_p, c_int32]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_token_to_piece": (c_int32, [c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool]),
    "llama_batch_init": (Batch, [c_int32, c_int32, c_int32]),
    "llama_batch_free": (None, [Batch]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_n_ctx_seq": (c_uint32, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_memory_can_shift": (c_bool, [c_void_p]),
    "llama_memory_seq_add": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_memory_seq_pos_min": (c_int32, [c_void_p, c_int32]),
    "llama_memory_seq_pos_max": (c_int32, [c_void_p, c_int32]),
    "llama_state_seq_get_size": (c_size_t, [c_void_p, c_int32]),
    "llama_state_seq_get_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_state_seq_set_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
}


def library_path() -> Path:
    """Where the shared object lies: `KVTC_LLAMA_LIBRARY`, else inside the installed `xllamacpp` package."""
    chosen = os.environ.get("KVTC_LLAMA_LIBRARY")
    if chosen:
        return Path(chosen)
    package = importlib.util.find_spec("xllamacpp")
    if package is None or not package.submodule_search_locations:
        raise LlamaError("no llama.cpp: pip install 'Sources/Python[llama]' (deploy/setup --demo does), or set KVTC_LLAMA_LIBRARY")
    for folder in package.submodule_search_locations:
        for file in sorted(Path(folder).glob("xllamacpp*.so")):
            return file
    raise LlamaError("the installed 'xllamacpp' has no shared object")


class LlamaLibrary:
    """The loaded library; its functions are attributes under their C names."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, path: Path | None = None, *, quiet: bool = True) -> None:
        path = path or library_path()
        # The engine's threads wait for each other by spinning; beside other programs (kvtcd's coder among them) that
        # costs up to ten times what sleeping does.
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            # A machine without a compiler may lack it; wheels can't bring it.
            hint = " (on Debian: apt install libgomp1)" if "libgomp" in str(error) else ""
            raise LlamaError(f"cannot load {path}: {error}{hint}") from error
        for name, (result, arguments) in _SIGNATURES.items():
            try:
                function = getattr(self._library, name)
            except AttributeError:
                raise LlamaError(f"{path} does not export {name}") from None
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self._check_layout(path)
        self.llama_log_set(_WARNINGS_ONLY if quiet else _EVERYTHING, None)
        self.llama_backend_init()

    def _check_layout(self, path: Path) -> None:
        context, model = self.llama_context_default_params(), self.llama_model_default_params()
        expected = {
            "n_ctx": context.n_ctx == 512,
            "n_batch": context.n_batch == 2048,
            "n_ubatch": context.n_ubatch == 512,
            "n_seq_max": context.n_seq_max == 1,
            "n_threads": 1 <= context.n_threads <= 4096 and context.n_threads == context.n_threads_batch,
            "ctx_type": context.ctx_type == 0,
            "rope_scaling_type": context.rope_scaling_type == -1,
            "flash_attn_type": context.pooling_type == context.attention_type == context.flash_attn_type == -1,
            "rope_freq_base": context.rope_freq_base == 0 and context.rope_freq_scale == 0,
            "yarn": list(context.yarn) == [-1.0] * 4 and context.defrag_thold == -1,
            "type_k": context.type_k == F16 and context.type_v == F16 and not context.cb_eval,
            "n_gpu_layers": model.n_gpu_layers in (-1, 999) and model.split_mode == 1 and not model.devices,
        }
        wrong = [name for name, fits in expected.items() if not fits]
        if wrong:
            raise LlamaError(
                f"{path} lays its parameters out differently ({', '.join(wrong)}): "
                "it is not the release of requirements-llama.txt"
            )


def _everything(level: int, text: bytes, _: object) -> None:
    os.write(2, text)


def _warnings_only(level: int, text: bytes, _: object) -> None:
    if level == 4:  # errors; warnings of a prefill are of no use in the demo
        os.write(2, text)


# The engine has one callback for all workers, so it must outlive each of them.
_EVERYTHING, _WARNINGS_ONLY = _LOG(_everything), _LOG(_warnings_only)
