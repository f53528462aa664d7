"""A transformers model's cache, kept by kvtcd.

    kept = kvtc.transformers.keep(model)          # or keep(model, mode="transform", ratio=16)
    model.generate(**inputs, max_new_tokens=64)   # as before
    kept.close()                                  # the model is as it was

`keep` is all that most programs need. `TransformersWorker` is one sequence of a model whose cache can be read and replaced, for
those that compute without `generate`; `open_session`, `restore`, `resume` and `offload` are what they do with it, as for llama.cpp.

Pages are those of the model's content: parameters, adapters in force and their scales, configuration, the cache's type, a salt.
"""

from ..engine import EngineError, TokenError
from ..prompts import fetch_state, offload, restore, resume
from ..transfer import DEADLINE, Offload
from .keeping import Counts, Kept, keep
from .sessions import open_session, profile_for
from .worker import TransformersWorker

__all__ = [
    "DEADLINE",
    "Counts",
    "EngineError",
    "Kept",
    "Offload",
    "TokenError",
    "TransformersWorker",
    "fetch_state",
    "keep",
    "offload",
    "open_session",
    "profile_for",
    "restore",
    "resume",
]
