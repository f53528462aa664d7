"""A llama.cpp worker: one model, one context, one sequence whose KV cache can be read and replaced."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..engine import Origin, TokenError
from ..geometry import ModelGeometry
from ..record import TokenRecord
from ..rope import Rope, measured
from .blob import StateError, cell_positions
from .context import SEQUENCE, LlamaContext
from .library import CACHE_BYTES, LlamaError
from .state import SequenceState, blank_state, parse_state

_ROPE_STYLES = {-1: "none", 0: "interleaved", 2: "half_split"}


class LlamaWorker(LlamaContext):
    """A model on the CPU, with one sequence.

    `context` is the longest sequence wanted; a model trained for less gets what it was trained for.

    Rows that sliding-window layers let go are kept here: the cache is to be offloaded whole, so that any beginning of it can
    be resumed.

    It knows what its cache was computed from (`origin`) and by what (`identity`). An error leaves it usable, with the cache
    that it had or a shorter one. Raises TokenError, before anything is computed, for what are no tokens of the model.
    """

    _record: TokenRecord

    def __init__(self, path: str | Path | None = None, *, context: int = 2560, batch: int = 512, threads: int = 2) -> None:
        self._window: int | None = None
        self._seen: SequenceState | None = None
        super().__init__(path, context=context, batch=batch, threads=threads)
        try:
            self._learn()
        except BaseException:
            self.close()
            raise

    def _open_context(self, context: int, batch: int, threads: int, cache: str) -> None:
        super()._open_context(context, batch, threads, cache)
        self._record = TokenRecord()

    def sibling(self, cache: str) -> LlamaWorker:
        """A second context of the same model whose cache has another element type ("f16", "q8_0", "q4_0").

        The engine's own compression; `get_state` cannot read such a cache. It begins with this worker's adapters. Close it
        before this worker.
        """
        other = copy.copy(self)
        other._owns_model, other._context, other._window, other._seen = False, None, None, None
        other._open_context(self.context, self.batch, self.threads, cache)
        other._apply(self.adapters)
        return other

    def _learn(self) -> None:
        """The form of the states of this release and model, and with it the model's geometry, from a few tokens. Also warms
        the engine up."""
        tokens = range(min(32, self.vocabulary_size, self.context))
        self.prefill(tokens)
        state = self.get_state()
        self.state_form = state.form
        architecture = self.metadata("general.architecture")
        if len(state.form.parts) > 1:
            self._window = int(self.metadata(f"{architecture}.attention.sliding_window") or 0) or None
        head_dim = int(
            self.metadata(f"{architecture}.attention.key_length")
            or self._library.llama_model_n_embd(self._model) // self._library.llama_model_n_head(self._model)
        )
        key_rows, value_rows = ({rows.shape[1] for rows in tensors} for tensors in (state.keys, state.values))
        if len(key_rows) != 1 or len(value_rows) > 1:
            raise LlamaError(f"layers of different width are not supported: rows of K {key_rows}, of V {value_rows}")
        (row,) = key_rows
        # Latent attention names what its latents expand to in some releases.
        heads = row // head_dim if state.values and row % head_dim == 0 else 1
        value_row = max(value_rows, default=0)
        if value_row % heads:
            raise LlamaError(f"rows of {value_row} elements of V do not fall into the {heads} heads of K")
        self.geometry = ModelGeometry(state.layers, heads, row // heads, value_row // heads, self._rope(state, row // heads))
        self.clear()

    def _rope(self, state: SequenceState, head_dim: int) -> Rope:
        library, architecture = self._library, self.metadata("general.architecture")
        style = library.llama_model_rope_type(self._model)
        if style not in _ROPE_STYLES:
            raise LlamaError(f"rotary embedding of kind {style} is not supported")
        dims = int(self.metadata(f"{architecture}.rope.dimension_count") or head_dim)
        if _ROPE_STYLES[style] == "none":
            dims = 0
        offset = 0 if state.values else head_dim - dims
        named = Rope.geometric(
            _ROPE_STYLES[style], offset, dims, float(self.metadata(f"{architecture}.rope.freq_base") or 10000.0), state.layers
        )
        # A cache that has no layers aborts the engine when it is to be shifted.
        if not dims or not library.llama_memory_can_shift(self._memory) or any(not keys for keys, _ in state.form.parts):
            return named
        return measured(named, state.keys, lambda distance: self._shifted(state, distance), head_dim)

    def _shifted(self, state: SequenceState, distance: int) -> list[np.ndarray]:
        """K of the state's tokens as the engine has it once they stand so many positions further on."""
        self.set_state(state)
        self._library.llama_memory_seq_add(self._memory, SEQUENCE, 0, -1, distance)
        # The engine turns the keys when it decodes next.
        self._submit([0], state.cells + distance, [])
        return [keys[: state.cells] for keys in self.get_state().keys]

    # Computing

    @property
    def position(self) -> int:
        """Where the next token stands, as the engine counts: one after the last of the sequence."""
        self._check_open()
        end: int = self._library.llama_memory_seq_pos_max(self._memory, SEQUENCE)
        return end + 1

    @property
    def origin(self) -> Origin | None:
        """What the cache was computed from; None where that is not known (`doubt` says why)."""
        self._observe()
        return self._record.origin()

    @property
    def doubt(self) -> str:
        """Why it is not known what the cache was computed from; empty where it is."""
        self._observe()
        return self._record.doubt

    def _observe(self) -> None:
        self._record.observe_end(self.position)
        if self._record.tokens and not self._record.doubt:
            # No call tells the position of a single cell. A copy of the cache does; one more token takes longer.
            try:
                self._record.observe(cell_positions(self._read_blob()))
            except StateError as error:
                self._record.doubt = str(error)

    def matching(self, tokens: Sequence[int]) -> int:
        """How many of these tokens the cache begins with, as this worker with its present adapters computes them."""
        self._observe()
        return self._record.matching(tokens, self.identity.digest)

    def clear(self) -> None:
        """Forgets the sequence."""
        super().clear()
        self._record, self._seen = TokenRecord(), None

    def truncate(self, position: int) -> None:
        """Forgets the cells from `position` on. Raises ValueError for a position below 0."""
        position = operator.index(position)
        if position < 0:
            raise ValueError(f"a sequence cannot be cut at {position}")
        if position == 0:
            self.clear()
        if self.position <= position:
            return
        if self._window and self._library.llama_memory_seq_pos_min(self._memory, SEQUENCE) > max(0, position - self._window):
            # The engine has let go of rows that the next token sees.
            self.set_state(self.get_state().first(position))
            return
        if not self._library.llama_memory_seq_rm(self._memory, SEQUENCE, position, -1):
            raise LlamaError(f"the cache cannot be cut at {position}")
        self._record.cut(position)
        if self._seen and self._seen.cells > position:
            self._seen = self._seen.first(position)

    def prefill(self, tokens: Sequence[int] | np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Appends tokens to the sequence; the logits after the last one [vocabulary]."""
        ids = self._following(tokens)
        logits: np.ndarray | None = None
        for begin, chunk in self._chunks(ids):
            last = begin + len(chunk) == len(ids)
            logits = self._decode(chunk, [len(chunk) - 1] if last else [])
            if progress:
                progress(len(chunk))
        if logits is None:
            raise TokenError("there are no tokens to compute")
        return np.asarray(logits[0])

    def score(self, tokens: Sequence[int] | np.ndarray, skip: int = 0) -> np.ndarray:
        """Appends tokens; the logits after each of them but the first `skip` [tokens − skip, vocabulary]."""
        ids, skip = self._following(tokens), operator.index(skip)
        if skip < 0:
            raise ValueError(f"cannot skip {skip} tokens")
        rows = [np.empty((0, self.vocabulary_size), np.float32)]
        for begin, chunk in self._chunks(ids):
            rows.append(self._decode(chunk, range(min(max(skip - begin, 0), len(chunk)), len(chunk))))
        return np.concatenate(rows)

    def _following(self, tokens: Sequence[int] | np.ndarray) -> list[int]:
        """Tokens to append, of which there may be as many as the context has room for."""
        ids, position = self.checked(tokens), self.position
        if position + len(ids) > self.context:
            raise TokenError(f"{position} + {len(ids)} tokens do not fit a context of {self.context}")
        return ids

    def generate(self, logits: np.ndarray, count: int) -> Iterator[int]:
        """Greedy continuation from the last logits; stops at an end-of-generation token."""
        for _ in range(count):
            token = int(np.argmax(logits))
            if self._library.llama_vocab_is_eog(self._vocabulary, token):
                return
            yield token
            logits = self.prefill([token])

    def _chunks(self, tokens: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        step = min(self.batch, self._window or self.batch)
        for begin in range(0, len(tokens), step):
            yield begin, tokens[begin : begin + step]

    def _decode(self, tokens: Sequence[int], wanted: Sequence[int]) -> np.ndarray:
        begin = self.position
        self._record.observe_end(begin)
        if self._window and begin + len(tokens) - (self._seen.cells if self._seen else 0) > self._window:
            self.get_state()
        try:
            self._submit(tokens, begin, wanted)
        except BaseException:
            # What was decoded of the batch, if anything, has no record.
            self._library.llama_memory_seq_rm(self._memory, SEQUENCE, begin, -1)
            raise
        self._record.append(tokens, self.identity.digest)
        rows = np.empty((len(wanted), self.vocabulary_size), np.float32)
        for row, index in enumerate(wanted):
            pointer = self._library.llama_get_logits_ith(self._context, index)
            if not pointer:
                raise LlamaError(f"no logits for token {index} of the batch")
            rows[row] = np.ctypeslib.as_array(pointer, (self.vocabulary_size,))
        return rows

    def _submit(self, tokens: Sequence[int], first: int, wanted: Sequence[int]) -> None:
        """Has the engine decode a batch whose tokens stand from position `first` on."""
        batch, chosen = self._batch, set(wanted)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, first + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, SEQUENCE
            batch.logits[index] = index in chosen
        batch.n_tokens = len(tokens)
        status = self._library.llama_decode(self._context, batch)
        if status != 0:
            raise LlamaError(f"llama_decode answered {status} at position {first}")

    # The cache

    def blank_state(self, cells: int) -> SequenceState:
        """A state of that many tokens whose rows are to be replaced."""
        return blank_state(range(cells), self.state_form)

    def get_state(self) -> SequenceState:
        """A copy of the sequence's cache. Its `origin` is None where its cells are not those of the tokens computed."""
        self._check_open()
        blob = self._read_blob()
        self._record.observe(cell_positions(blob))
        state = parse_state(blob, self._seen)
        state.origin = self._record.origin()
        if self._window:
            self._seen = state.copy()
        return state

    def _read_blob(self) -> np.ndarray:
        size = self._library.llama_state_seq_get_size(self._context, SEQUENCE)
        blob = np.empty(size, np.uint8)
        written = self._library.llama_state_seq_get_data(self._context, blob.ctypes.data, size, SEQUENCE)
        if written != size:
            raise LlamaError(f"llama.cpp wrote {written} of {size} bytes of state")
        return blob

    def cache_bytes(self) -> int:
        """Bytes of the sequence's keys and values as this context's element type holds them."""
        return round(self.geometry.token_bytes * self.position * CACHE_BYTES[self.cache] / CACHE_BYTES["f16"])

    def set_state(self, state: SequenceState | bytes) -> None:
        """Replaces the sequence's cache; what was computed from is what the state says."""
        blob = state.blob if isinstance(state, SequenceState) else np.frombuffer(state, np.uint8)
        self.clear()
        read = self._library.llama_state_seq_set_data(self._context, blob.ctypes.data, blob.nbytes, SEQUENCE)
        if read != blob.nbytes:
            self.clear()
            raise LlamaError(f"llama.cpp took {read} of {blob.nbytes} bytes of state")
        if self._window:
            self._seen = parse_state(blob.copy())
        origin = state.origin if isinstance(state, SequenceState) else None
        self._record = TokenRecord(origin, "" if origin else "its cells came from a state that does not say which tokens they are of")
