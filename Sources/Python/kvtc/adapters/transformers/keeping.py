"""`model.generate` with kvtcd beside it: what is known of a prompt's cache is brought back before, what is new is offered afterwards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from ...client import Client
from ...protocol.errors import KvtcError, Unavailable
from ...session import Session
from .. import prompts
from ..background import Background
from ..codec import DAEMON, Codec
from ..device import DeviceCodecs
from ..engine import EngineError
from ..late import LateClient
from ..options import Options
from ..sessions import needed_profile
from ..transfer import Offload
from .calls import unfit
from .forward import cache_argument
from .sessions import open_session
from .worker import TransformersWorker

log = logging.getLogger("kvtc")

_PENDING = 4
"""Calls whose pages wait to be pushed: each may hold as much memory as its prompt's cache."""
_BEHIND = 30.0
"""Seconds for which the pages of a call are offered, behind the calls: nothing waits for them."""


@dataclass
class Counts:
    """Of a model that is kept, since `keep`. `alone`: calls that had no part in it."""

    calls: int = 0
    alone: int = 0
    prompt_tokens: int = 0
    restored_tokens: int = 0
    stored_pages: int = 0
    present_pages: int = 0
    refused_pages: int = 0


class Kept:
    """See `keep`. `counts` say what it did, `refusal` why it does nothing for this model, where that is so."""

    def __init__(self, model: Any, options: Options, page_tokens: int) -> None:
        self.model, self.counts, self.refusal = model, Counts(), ""
        self._options, self._page_tokens = options, page_tokens
        self._generate: Callable[..., Any] = model.generate
        self._busy = threading.Lock()
        self._late = LateClient(options, "transformers")
        self._session: Session | None = None
        self._told: set[str] = set()
        self.worker: TransformersWorker | None = None
        self._background: Background | None = None
        self._codecs: DeviceCodecs | None = None
        try:
            self.worker = TransformersWorker(model, salt=options.salt)
        except EngineError as error:
            self.refusal = str(error)
        except Exception as error:
            log.exception("the cache of %s could not be understood", type(model).__name__)
            self.refusal = f"{type(model).__name__}: {error}"
        if self.worker is None:
            log.warning("kvtcd keeps nothing of this model: %s", self.refusal)
            return
        self._background = Background("kvtc-offload", _PENDING)
        if self.worker.device is not None:
            self._codecs = DeviceCodecs(options, self.worker.device, self.worker.element)
            try:
                if session := self._opened(self.worker):
                    self._codecs.warm_up(session, options.policy)
            except Exception as error:
                self._failed(error)
        model.generate = self.generate

    def generate(self, inputs: Any = None, **options: Any) -> Any:
        """What the model's own `generate` gives."""
        ids = options.get("input_ids") if inputs is None else inputs
        reason = self._reason(ids, options)
        if reason or not self._busy.acquire(blocking=False):
            self.counts.alone += 1
            self._say(f"generate goes on without kvtcd: {reason or 'another call is under way'}")
            return self._generate(inputs, **options)
        try:
            return self._kept(ids, inputs, options)
        finally:
            self._busy.release()

    def _reason(self, ids: Any, options: dict[str, Any]) -> str:
        try:
            return unfit(self.model, ids, options)
        except Exception as error:
            # What is wrong with the call is the model's own to say.
            return f"{type(error).__name__}: {error}"

    def _kept(self, ids: Any, inputs: Any, options: dict[str, Any]) -> Any:
        worker = self.worker
        assert worker
        prompt: list[int] = ids[0].tolist()
        session, restored = None, 0
        try:
            session = self._opened(worker)
            # The last token's logits are not in the cache.
            if session:
                bring = prompts.restore if self._options.always_restore else prompts.restore_if_faster
                restored = bring(session, worker, prompt[:-1], codec=self._codec(session), deadline=self._options.deadline)
        except Exception as error:
            self._failed(error)
        self.counts.calls += 1
        self.counts.prompt_tokens += len(prompt)
        self.counts.restored_tokens += restored
        cache = worker.cache if restored else worker.blank_cache()
        try:
            output = self._generate(inputs, **options, **{cache_argument(self.model): cache})
            if session:
                try:
                    self._offer(session, worker, cache, output, restored)
                except Exception as error:
                    self._failed(error)
            return output
        finally:
            worker.clear()

    def _offer(self, session: Session, worker: TransformersWorker, cache: Any, output: Any, restored: int) -> None:
        rows = output if hasattr(output, "shape") else output.sequences
        tokens: list[int] = rows[0].tolist()
        worker.adopt(cache, tokens, restored)
        cells = min(worker.position, worker.context)
        push = prompts.collect(session, worker, tokens[:cells], restored // session.page_tokens, codec=self._codec(session))

        def job() -> None:
            self._count(push(max(_BEHIND, self._options.deadline)))

        if self._background and not self._background.submit(job):
            self._say("kvtcd is slower than this model: the pages of a call were not offered")

    def _codec(self, session: Session) -> Codec:
        return self._codecs.codec(session, self._options.policy) if self._codecs else DAEMON

    def _count(self, done: Offload) -> None:
        self.counts.stored_pages += done.stored
        self.counts.present_pages += done.present
        self.counts.refused_pages += done.refused

    def _opened(self, worker: TransformersWorker) -> Session | None:
        """The session of what the model is now; None while there is none to be had."""
        if self._session and self._session.identity == worker.identity.digest:
            return self._session
        previous = self._session

        def renew(client: Client) -> None:
            self._session = self._open(client, worker)
            with suppress(KvtcError):
                if previous:
                    previous.close()

        try:
            self._late.use(renew)
        except Unavailable:
            pass
        except KvtcError as error:
            log.warning("%s; going on without kvtcd", error)
        return self._session if self._session and self._session.identity == worker.identity.digest else None

    def _open(self, client: Client, worker: TransformersWorker) -> Session:
        options, profile = self._options, self._options.profile
        if options.mode.needs_profile and not profile:
            advice = "make one with 'kvtcctl calibrate' and load it with 'kvtcctl profile load'"
            profile = needed_profile(client, options.mode, worker.weights, advice)
        return open_session(client, worker, worker.name, profile=profile, policy=options.policy, page_tokens=self._page_tokens)

    def _failed(self, error: Exception) -> None:
        """A fault of this side costs a computation, no more."""
        if isinstance(error, (EngineError, KvtcError)):
            self._say(f"{error}; going on without kvtcd")
        else:
            log.error("going on without kvtcd", exc_info=error)

    def _say(self, text: str) -> None:
        """Once: calls that are alike come by the thousand."""
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            log.warning("%s", text)

    def flush(self) -> None:
        """Returns when the pages offered so far were handed over, or given up."""
        done = threading.Event()
        if self._background and self._background.submit(done.set):
            done.wait()

    def close(self) -> None:
        """Hands over what waits, hangs up, and gives the model its own `generate` back."""
        if self._background:
            self._background.close()
            if self.model.__dict__.get("generate") == self.generate:
                del self.model.generate
        with suppress(KvtcError):
            if self._session:
                self._session.close()
        self._session = None
        if self._codecs:
            self._codecs.close()
        self._late.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def keep(model: Any, *, page_tokens: int = 64, **options: Any) -> Kept:
    """Has kvtcd keep the cache of every sequence that `model.generate` computes, and bring back what it has of the next one's.

    `generate` is called as before and gives what it gave. Calls of several sequences, beams, images or caches of the caller's own are
    left alone, once with a line in the log (logger `kvtc`), as is a model whose layers keep something else than K and V of tokens.
    A daemon that is away, stuck, full or slow costs at most `deadline` seconds, and the calls after that nothing, until it answers again.

    `options`: socket, mode ("lossless", or "transform" for weights that the daemon has a profile of), ratio or distortion, sink,
    window, priority, ttl_seconds, near, distortion_limit, code, profile, deadline, salt, arena_mib, always_restore, codec ("auto",
    "daemon", "device"), device_mib. Raises ValueError for what they cannot be.
    """
    return Kept(model, Options.parse(options), page_tokens)
