"""Offload, restore and resume of a prompt's cache, with a fake engine and a fake daemon; and what a session is opened for."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import pytest

from kvtc import Geometry, KvtcError, Lookup, Page, Part
from kvtc.adapters import prompts, sessions
from kvtc.protocol.messages import PullOutcome, PushOutcome, Residence
from kvtc.protocol.policy import Mode

from fake_worker import GEOMETRY, IDENTITY, FakeWorker, filled_worker


@dataclass
class FakeSession:
    """Keeps pages; those in `damaged` are found and then do not come."""

    pages: dict[bytes, bytes] = field(default_factory=dict)
    damaged: set[bytes] = field(default_factory=set)
    page_tokens: int = 16
    profile: bytes = b""
    page_bytes: int = 16 * GEOMETRY.token_bytes
    identity: bytes = IDENTITY.digest
    mode: Mode = Mode.LOSSLESS

    @property
    def client(self) -> "FakeSession":
        return self

    token_bytes: int = GEOMETRY.token_bytes

    def status(self) -> dict[str, object]:
        return {}

    def bounded(self, seconds: float) -> AbstractContextManager[None]:
        return nullcontext()

    def push(self, pages: "list[Page]") -> list[PushOutcome]:
        outcomes = []
        for page in pages:
            assert page.tokens == self.page_tokens and page.first_position % self.page_tokens == 0
            outcomes.append(PushOutcome.PRESENT if page.key in self.pages else PushOutcome.STORED)
            self.pages.setdefault(page.key, bytes(page.data))
        return outcomes

    def lookup(self, keys: list[bytes], lease_ms: int) -> Lookup:
        run = next((i for i, key in enumerate(keys) if key not in self.pages), len(keys))
        return Lookup([Residence.RAW] * run, run, None)

    def pull(self, keys: list[bytes], lease: object, layer_step: int = 0) -> list[Part]:
        parts = []
        for index, key in reversed(list(enumerate(keys))):
            hit = key not in self.damaged
            outcome, data = (PullOutcome.HIT, self.pages[key]) if hit else (PullOutcome.CORRUPT, b"")
            parts.append(Part(index, key, outcome, range(2), memoryview(data)))
        return parts


TOKENS = list(range(1000, 1100))


@pytest.fixture
def worker() -> FakeWorker:
    return filled_worker(TOKENS)


def test_what_was_offloaded_is_restored_bit_exactly(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    done = prompts.offload(session, worker, TOKENS)
    assert (done.pages, done.stored, done.present, done.refused) == (6, 6, 0, 0)
    assert done.raw_bytes == 96 * GEOMETRY.token_bytes
    assert prompts.offload(session, worker, TOKENS, first_page=2).present == 4
    assert prompts.restore(session, second, TOKENS) == 96 == second.position
    for mine, theirs in zip(second.get_state().tensors(), worker.get_state().tensors(), strict=True):
        assert np.array_equal(mine, theirs[:96])


def test_restoring_goes_as_far_as_the_tokens_are_the_same(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    prompts.offload(session, worker, TOKENS)
    assert prompts.restore(session, second, TOKENS[:40] + [7] + TOKENS[41:]) == 32
    assert prompts.restore(session, second, [7, *TOKENS[1:]]) == 0 and second.state is None
    assert prompts.restore(session, second, TOKENS[:15]) == 0


def test_a_damaged_page_ends_what_is_restored(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    prompts.offload(session, worker, TOKENS)
    session.damaged = {list(session.pages)[3], list(session.pages)[5]}
    assert prompts.restore(session, second, TOKENS) == 48 == second.position
    # What the worker holds itself is as good, and is kept where it goes further.
    session.damaged = {next(iter(session.pages))}
    assert prompts.restore(session, second, TOKENS) == 48 == second.position
    assert prompts.restore(session, FakeWorker(), TOKENS) == 0


def test_resuming_computes_the_rest_and_at_least_one_token(worker: FakeWorker) -> None:
    session, second = FakeSession(), FakeWorker()
    prompts.offload(session, worker, TOKENS)
    assert prompts.resume(session, second, TOKENS) == "logits" and second.prefilled == TOKENS[96:]
    prompts.resume(session, second, TOKENS[:96])
    assert second.prefilled == [TOKENS[95]] and second.position == 95


def test_a_cache_that_does_not_hold_the_tokens_is_refused(worker: FakeWorker) -> None:
    with pytest.raises(ValueError, match="holds 100 tokens"):
        prompts.offload(FakeSession(), worker, list(range(101)))


@dataclass
class FakeClient:
    """Opens sessions of tokens of 100 bytes, and says what for."""

    closed: bool = False
    declared: Geometry | None = None
    token_bytes: int = 100

    def open_session(self, name: str, geometry: Geometry, **_: object) -> "FakeClient":
        self.declared = geometry
        return self

    def close(self) -> None:
        self.closed = True


MEASURED = Geometry.from_heads(layers=1, kv_heads=1, head_dim=8, rope_style="half_split")


def test_a_session_whose_tokens_have_another_size_is_closed_and_refused() -> None:
    client = FakeClient()
    with pytest.raises(KvtcError, match="96 bytes here and 100 for the daemon"):
        sessions.open_session(client, "chat", sessions.CacheForm(IDENTITY, MEASURED, 96))
    assert client.closed


@pytest.mark.parametrize(("profile", "is_exact", "is_declared"), [("", False, True), ("ab", True, True), ("ab", False, False)])
def test_a_profile_decides_on_frequencies_that_were_measured(profile: str, is_exact: bool, is_declared: bool) -> None:
    client = FakeClient()
    cache = sessions.CacheForm(IDENTITY, MEASURED, 100, is_exact=is_exact)
    assert sessions.open_session(client, "chat", cache, profile=profile) is client and not client.closed
    assert client.declared == (MEASURED if is_declared else Geometry())


def test_pages_that_were_collected_are_those_of_then() -> None:
    """They are pushed later, by another thread, when the worker is at something else; once and again the same."""
    now, later = FakeSession(), FakeSession()
    worker = filled_worker(TOKENS)
    prompts.offload(now, worker, TOKENS)
    push = prompts.collect(later, worker, TOKENS, 1)
    for tensor in worker.state.tensors():
        tensor[:] = 0
    worker.clear()
    done = push(5.0)
    assert done.stored == done.pages == len(now.pages) - 1 and done.raw_bytes == done.pages * now.page_bytes
    assert later.pages == dict(list(now.pages.items())[1:])
    assert push(5.0).present == done.pages
    assert prompts.collect(later, worker, TOKENS[:5])(5.0).pages == 0
