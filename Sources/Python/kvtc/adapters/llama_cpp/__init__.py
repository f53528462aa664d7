"""A llama.cpp sequence's cache, kept by kvtcd.

    with LlamaWorker() as worker, kvtc.connect() as client:
        session = llama_cpp.open_session(client, worker, "chat", profile=profile, policy=kvtc.Policy(mode="transform", quality=16))
        tokens = worker.tokenize(text)
        logits = llama_cpp.resume(session, worker, tokens)   # restores what kvtcd has, computes the rest
        llama_cpp.offload(session, worker, tokens)           # hands the pages over for the next time

A page is `session.page_tokens` tokens; its key is a hash of all tokens up to its end, so equal beginnings share pages.
The tokens after the last full page are few and computed again.

Pages are those of the worker's `identity`: its weights, its LoRA adapters and their scales. Workers of other weights or adapters
never meet them, and a worker whose adapters changed since the session was opened gets and keeps nothing through it.

Nothing here is worse than having no kvtcd. Whatever is not to be had is computed: a daemon that is away, stuck, full or slow costs
at most `deadline` seconds (5, unless you say otherwise), and the calls after that nothing, until it answers again. Why is logged,
and what became of pages that were offered is in `Offload`. Only wrong arguments raise.
"""

from ..engine import TokenError
from ..geometry import wire_geometry
from ..prompts import fetch_state, offload, restore, resume
from ..transfer import DEADLINE, Offload
from .library import LlamaError
from .sessions import open_session, profile_for
from .worker import LlamaWorker

__all__ = [
    "DEADLINE",
    "LlamaError",
    "LlamaWorker",
    "Offload",
    "TokenError",
    "fetch_state",
    "offload",
    "open_session",
    "profile_for",
    "restore",
    "resume",
    "wire_geometry",
]
