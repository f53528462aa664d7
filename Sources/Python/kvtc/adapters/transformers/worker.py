"""A decoder that transformers loaded, with one sequence whose cache can be read and replaced."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...identity import Identity
from ...protocol.geometry import Element
from ..engine import EngineError, Origin, TokenError, checked_tokens
from ..geometry import ModelGeometry
from ..record import TokenRecord
from ..rope import Rope
from .content import ModelContent, files_digest, refusal, trained_context
from .forward import cache_argument, takes
from .loading import load_model, load_tokenizer
from .rotary import frequency_tables, observed
from .state import CacheState
from .tensors import pairs, rows_of, to_numpy, to_torch, widened

_ELEMENTS = {"float16": Element.F16, "bfloat16": Element.BF16, "float32": Element.F32}
_TRIAL_TOKENS = 32


class TransformersWorker:
    """`model`: any decoder whose layers keep K and V of tokens; what keeps something else is refused with EngineError.

    Layers with a sliding window keep all rows here, so that any beginning of a sequence can be resumed; what they see is up to the
    mask, which stays the model's. `salt` keeps its pages apart from others'. `element` keeps the cache in another type than it is
    computed in, which rounds.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        context: int | None = None,
        batch: int = 2048,
        element: Element | None = None,
        salt: bytes | str = b"",
    ) -> None:
        if reason := refusal(model):
            raise EngineError(f"{type(model).__name__}: {reason}")
        self.model, self.tokenizer, self.batch, self.salt = model, tokenizer, batch, salt
        self._config = model.config.get_text_config(decoder=True)
        self.vocabulary_size = int(self._config.vocab_size)
        self.trained_context = trained_context(self._config)
        self.context = min(context or self.trained_context, self.trained_context)
        self.path = Path(str(model.name_or_path))
        self.name = self.path.name or type(model).__name__
        self._content = ModelContent(model)
        self._learn(element)
        self.clear()

    @classmethod
    def load(
        cls,
        place: Path,
        *,
        dtype: str = "float32",
        context: int | None = None,
        threads: int | None = None,
        element: Element | None = None,
    ) -> Self:
        """From a directory, or a GGUF file, whose weights are widened. Nothing is looked for elsewhere. `threads` are the process's."""
        return cls(load_model(place, dtype, threads), load_tokenizer(place), context=context, element=element)

    def _learn(self, element: Element | None) -> None:
        """The cache's shape and what RoPE does, from a few tokens."""
        ids = list(range(min(_TRIAL_TOKENS, self.vocabulary_size, self.context)))
        cache = self._trial(ids, 0)
        # Layers that use another one's cache have none.
        self._numbers = [number for number, layer in enumerate(cache.layers) if getattr(layer, "is_initialized", False)]
        layers = [cache.layers[number] for number in self._numbers]
        if not layers:
            raise EngineError(f"{type(self.model).__name__} leaves its cache empty")
        computed = str(layers[0].keys.dtype).removeprefix("torch.")
        if computed not in _ELEMENTS:
            raise EngineError(f"a cache of {computed} is not known; {', '.join(_ELEMENTS)} are")
        self.element = element or _ELEMENTS[computed]
        self.kv_type = computed if self.element == _ELEMENTS[computed] else f"{computed} as {self.element.name}"
        self._devices = [layer.keys.device for layer in layers]
        self._dtype = layers[0].keys.dtype
        keys, values = ({(tensor.shape[1], tensor.shape[3]) for tensor in tensors} for tensors in pairs(layers))
        if len(keys) != 1 or len(values) != 1 or next(iter(keys))[0] != next(iter(values))[0]:
            raise EngineError(f"layers of different width are not known: K of {sorted(keys)} heads and elements, V of {sorted(values)}")
        (heads, head_dim), (_, value_dim) = *keys, *values
        self.geometry = ModelGeometry(len(layers), heads, head_dim, value_dim, self._rope(ids, layers, head_dim), self.element.size)

    def _rope(self, ids: list[int], layers: list[Any], head_dim: int) -> Rope:
        parameters = getattr(self._config, "rope_parameters", None) or {}
        base = parameters.get("rope_theta") if parameters.get("rope_type") == "default" else None
        noise = 1e-3 if self._dtype.itemsize == 4 else 0.05
        keys = [widened(layer.keys) for layer in layers]

        def shifted(distance: int) -> list[np.ndarray]:
            moved = self._trial(ids, distance)
            return [widened(moved.layers[number].keys) for number in self._numbers]

        rope = observed(frequency_tables(self.model), base, keys, shifted, head_dim, noise)
        # Not turned back, pages are coded less well and no less right.
        return rope or Rope("none", 0, 0, None, ((),) * len(layers))

    def _trial(self, ids: list[int], first: int) -> Any:
        """A cache of these tokens at positions from `first` on."""
        cache = self.blank_cache()
        self._forward(ids, cache, first, 1)
        return cache

    def blank_cache(self) -> Any:
        """A cache that keeps every row of every layer."""
        from transformers import cache_utils as known

        cache = known.DynamicCache(config=self._config)
        for number, layer in enumerate(cache.layers):
            if type(layer) is known.DynamicSlidingWindowLayer:
                cache.layers[number] = known.DynamicLayer()
            elif type(layer) not in (known.DynamicLayer, getattr(known, "DummyLayer", known.DynamicLayer)):
                kind = type(layer).__name__
                raise EngineError(f"layer {number} of {type(self.model).__name__} keeps a {kind}, which is no K and V of tokens")
        return cache

    # What its cache is of

    @property
    def weights(self) -> bytes:
        """SHA-256 of the model's files, by which profiles are found; of its content where they are not here."""
        return files_digest(self.model) or self._content.digest()

    @property
    def engine(self) -> str:
        """What computes its samples, for the names of profiles: the same numbers in every release."""
        return f"transformers {self.kv_type}"

    @property
    def identity(self) -> Identity:
        """What the keys and values computed now depend on besides the tokens: parameters and adapters by content, configuration."""
        return Identity(self._content.digest(), kv_type=self.kv_type, salt=self.salt, extra={"engine": "transformers"})

    @property
    def position(self) -> int:
        return int(self.cache.get_seq_length(self._numbers[0]))

    @property
    def origin(self) -> Origin | None:
        self._record.observe_end(self.position)
        return self._record.origin()

    @property
    def doubt(self) -> str:
        """Why it is not known what the cache was computed from; empty where it is."""
        self._record.observe_end(self.position)
        return self._record.doubt

    def matching(self, tokens: Sequence[int]) -> int:
        """How many of these tokens the cache begins with, as this model computes them now."""
        self._record.observe_end(self.position)
        return self._record.matching(tokens, self.identity.digest)

    def checked(self, tokens: Sequence[int] | np.ndarray) -> list[int]:
        return checked_tokens(tokens, self.context, self.vocabulary_size)

    def tokenize(self, text: str, *, begin: bool = True) -> list[int]:
        """Token ids. With `begin`, as a text's beginning: preceded by what the model wants there (often a BOS token)."""
        return [int(token) for token in self.tokenizer(text, add_special_tokens=begin).input_ids]

    # Computing

    def clear(self) -> None:
        """Forgets the sequence."""
        self.cache, self._record = self.blank_cache(), TokenRecord()

    def truncate(self, position: int) -> None:
        """Forgets the cells from `position` on. Raises ValueError for a position below 0."""
        position = operator.index(position)
        if position < 0:
            raise ValueError(f"a sequence cannot be cut at {position}")
        if position == 0:
            self.clear()
        elif position < self.position:
            self.cache.crop(position - self.position)
            self._record.cut(position)

    def prefill(self, tokens: Sequence[int] | np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Appends tokens to the sequence; the logits after the last one [vocabulary]."""
        ids = self._following(tokens)
        if not ids:
            raise TokenError("there are no tokens to compute")
        return np.asarray(self._append(ids, 1, progress)[-1])

    def score(self, tokens: Sequence[int] | np.ndarray, skip: int = 0) -> np.ndarray:
        """Appends tokens; the logits after each of them but the first `skip` [tokens − skip, vocabulary]."""
        ids, skip = self._following(tokens), operator.index(skip)
        if skip < 0:
            raise ValueError(f"cannot skip {skip} tokens")
        return self._append(ids, max(0, len(ids) - skip))

    def adopt(self, cache: Any, tokens: Sequence[int], known: int) -> None:
        """Goes on with a cache of `blank_cache` or this worker's own, into which the model computed these tokens behind the first
        `known`, which this worker knows; perhaps not the last of them."""
        if cache is not self.cache:
            self.clear()
            self.cache = cache
        self._record.append(list(tokens[known : self.position]), self.identity.digest)

    def _following(self, tokens: Sequence[int] | np.ndarray) -> list[int]:
        ids, position = self.checked(tokens), self.position
        if position + len(ids) > self.context:
            raise TokenError(f"{position} + {len(ids)} tokens do not fit a context of {self.context}")
        return ids

    def _append(self, ids: list[int], wanted: int, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Computes tokens; the logits of the last `wanted`."""
        rows = [np.empty((0, self.vocabulary_size), np.float32)]
        for begin in range(0, len(ids), self.batch):
            chunk = ids[begin : begin + self.batch]
            last = min(len(chunk), max(0, begin + len(chunk) - (len(ids) - wanted)))
            try:
                logits = self._forward(chunk, self.cache, self.position, last)
            except Exception as error:
                # Some of the layers may have the tokens.
                self.clear()
                raise EngineError(f"{type(self.model).__name__}: {error}") from error
            rows.append(logits)
            self._record.append(chunk, self.identity.digest)
            if progress:
                progress(len(chunk))
        return np.concatenate(rows)

    def _forward(self, ids: list[int], cache: Any, first: int, wanted: int) -> np.ndarray:
        import torch

        with torch.no_grad():
            return np.asarray(self._logits(ids, cache, first, wanted).float().cpu().numpy())

    def _logits(self, ids: list[int], cache: Any, first: int, wanted: int) -> Any:
        """After the last `wanted` of these tokens, whose positions begin with `first`; appends them to `cache`."""
        import torch

        device = self.model.get_input_embeddings().weight.device
        inputs = torch.tensor([ids], device=device)
        options = {cache_argument(self.model): cache, "position_ids": torch.arange(first, first + len(ids), device=device)[None]}
        if takes(self.model, "logits_to_keep"):
            # 0 would mean all.
            options["logits_to_keep"] = max(1, wanted)
        logits = self.model(inputs, use_cache=True, **options).logits[0, :, : self.vocabulary_size]
        return logits[len(logits) - wanted :]

    def logits_after(self, keys: Any, values: Any, tokens: list[int]) -> Any:
        """Logits [tokens, vocabulary] after each of these tokens, which follow a cache of torch's [layers, cells, heads, width]; all
        of it can be differentiated. The worker's sequence stays."""
        cache = self.blank_cache()
        for number, *rows in zip(self._numbers, keys, values, strict=True):
            cache.layers[number].update(*(row.transpose(0, 1)[None] for row in rows))
        return self._logits(tokens, cache, keys.shape[1], len(tokens)).float()

    # The cache

    @property
    def device(self) -> Any:
        """Where the cache is; None where its layers are on several devices, or are kept in another type than they are computed in."""
        is_one = len(set(self._devices)) == 1 and self.element == _ELEMENTS.get(str(self._dtype).removeprefix("torch."))
        return self._devices[0] if is_one else None

    def blank_state(self, cells: int) -> CacheState:
        """A state of that many tokens whose rows are to be replaced."""
        shape = self.geometry
        keys, values = ([(shape.heads, width)] * shape.layers for width in (shape.head_dim, shape.value_dim))
        return CacheState.blank(self.element, keys, values, cells, self.device)

    def get_state(self) -> CacheState:
        """A copy of the sequence's cache. Its `origin` is None where its cells are not those of the tokens computed."""
        if not self.position:
            return self.blank_state(0)
        layers = [self.cache.layers[number] for number in self._numbers]
        keys, values = ([rows_of(tensor) for tensor in tensors] for tensors in pairs(layers))
        return CacheState(self.element, keys, values, self.origin, lambda rows: to_numpy(rows, self.element), self.device)

    def set_state(self, state: CacheState) -> None:
        """Replaces the sequence's cache; what was computed from is what the state says."""
        self.clear()
        if state.cells:
            for number, (keys, values), device in zip(self._numbers, state.rows(), self._devices, strict=True):
                self.cache.layers[number].update(*(to_torch(tensor, self.element, self._dtype, device) for tensor in (keys, values)))
        self._record = TokenRecord(state.origin, "" if state.origin else "its cells came from a state that does not say which tokens they are of")

    def close(self) -> None:
        self.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
