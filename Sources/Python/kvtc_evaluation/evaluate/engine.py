"""The engines that an evaluation can run a model with, and what differs between them."""

from __future__ import annotations

from pathlib import Path

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.context import model_path
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.adapters.transformers.sessions import open_session as open_transformers_session
from kvtc.adapters.transformers.worker import TransformersWorker
from kvtc.calibration.readers import Reader
from kvtc.client import Client
from kvtc.protocol.geometry import Element
from kvtc.protocol.policy import Policy
from kvtc.session import Session

LLAMA, TRANSFORMERS = "llama.cpp", "transformers"
ENGINES = (LLAMA, TRANSFORMERS)


def open_worker(engine: str, model: Path | None, context: int, threads: int) -> Reader:
    """llama.cpp as it runs, with a model's own weights and activations in 8 bits; or transformers, which computes in float32 with
    them widened. The cache of either is in 16 bits: a ratio means the same of both. Raises EngineError."""
    if engine == TRANSFORMERS:
        return TransformersWorker.load(model or model_path(), context=context, threads=threads, element=Element.F16)
    return LlamaWorker(model, context=context, threads=threads)


def described(worker: Reader) -> str:
    """The model's name, and what ran it where that is not llama.cpp."""
    return worker.name if isinstance(worker, LlamaWorker) else f"{worker.path.stem} (transformers, float32)"


def open_session(client: Client, worker: Reader, profile: str, policy: Policy) -> Session:
    if isinstance(worker, TransformersWorker):
        return open_transformers_session(client, worker, "evaluate", profile=profile, policy=policy)
    return llama_cpp.open_session(client, worker, "evaluate", profile=profile, policy=policy)
