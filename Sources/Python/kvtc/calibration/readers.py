"""The engines that read texts for calibration, with one way to open and use either."""

from __future__ import annotations

from pathlib import Path

from ..adapters.llama_cpp.state import SequenceState
from ..adapters.llama_cpp.worker import LlamaWorker
from ..adapters.transformers.state import CacheState
from ..adapters.transformers.worker import TransformersWorker

Reader = LlamaWorker | TransformersWorker
ReaderState = SequenceState | CacheState


def open_reader(model: Path | None, *, context: int = 2560, threads: int = 2) -> Reader:
    """llama.cpp for a GGUF file (None: the demo's), transformers in float32 for a directory. Raises EngineError."""
    if model is None or not model.is_dir():
        return LlamaWorker(model, context=context, threads=threads)
    return TransformersWorker.load(model, context=context, threads=threads)
