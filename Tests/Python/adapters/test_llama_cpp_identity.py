"""What one llama.cpp worker keeps is found by workers that compute the same, and by no others; and a cache is kept only as that
of the tokens that it was computed from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from test_llama_cpp_daemon import SyntheticWorker
from test_llama_worker import MOVES, move, shift

import kvtc
from kvtc import Client, Identity, PushOutcome, Session
from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.protocol.errors import CacheMismatch

from fake_worker import IDENTITY
from random_models import VOCABULARY, write, write_adapter
from synthetic import calibrate

PAGE = 16
TOKENS = np.random.default_rng(21).integers(0, VOCABULARY, 80).tolist()
OTHERS = np.random.default_rng(22).integers(0, VOCABULARY, 80).tolist()
FULL = len(TOKENS)


def opened(path: Path) -> LlamaWorker:
    return LlamaWorker(path, context=256, threads=1)


def session_of(client: Client, worker: LlamaWorker, **options: object) -> Session:
    return llama_cpp.open_session(client, worker, "identity", page_tokens=PAGE, **options)


def kept(session: Session, tokens: list[int]) -> int:
    """How many pages of these tokens such a session finds."""
    return session.lookup(kvtc.page_keys(tokens, session.page_tokens, session.profile)).leading_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    write(path, "llama")
    return path


@pytest.fixture
def worker(model: Path) -> Iterator[LlamaWorker]:
    with opened(model) as worker:
        yield worker


# Identity


def test_other_weights_of_the_same_shape_find_nothing(client: Client, worker: LlamaWorker, model: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "a copy.gguf", tmp_path / model.name
    shutil.copy(model, copy)
    write(other, "llama", seed=9)
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    assert llama_cpp.offload(session, worker, TOKENS).stored == FULL // PAGE
    with opened(copy) as same, opened(other) as stranger:
        assert llama_cpp.restore(session_of(client, same), same, TOKENS) == FULL
        assert same.get_state().to_bytes() == worker.get_state().to_bytes()
        own = session_of(client, stranger)
        assert llama_cpp.restore(own, stranger, TOKENS) == 0 == stranger.position
        # Both are kept under the same keys.
        stranger.prefill(TOKENS)
        assert llama_cpp.offload(own, stranger, TOKENS).stored == FULL // PAGE
        worker.clear()
        assert llama_cpp.restore(session, worker, TOKENS) == FULL
        assert worker.get_state().to_bytes() == same.get_state().to_bytes() != stranger.get_state().to_bytes()


def test_with_the_same_profile_as_well(make_daemon, tmp_path: Path) -> None:
    daemon = make_daemon()
    profiles = daemon.directory / "state" / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    path = calibrate(tmp_path)
    shutil.copy(path, profiles)
    one, other = SyntheticWorker(512), SyntheticWorker(0)
    other.identity = Identity(bytes([1]) * 32)
    tokens = list(range(512))
    with daemon.connect() as client:
        profile = client.load_profile(path.name)["id"]
        assert llama_cpp.offload(llama_cpp.open_session(client, one, "one", profile=profile), one, tokens).stored == 8
        assert llama_cpp.restore(llama_cpp.open_session(client, other, "other", profile=profile), other, tokens) == 0
        other.identity = IDENTITY
        assert llama_cpp.restore(llama_cpp.open_session(client, other, "same", profile=profile), other, tokens) == 512


def test_a_profile_is_chosen_by_the_weights_it_was_made_of(make_daemon, model: Path, worker: LlamaWorker, tmp_path: Path) -> None:
    daemon = make_daemon()
    profiles = daemon.directory / "state" / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    (tmp_path / "other").mkdir()
    with daemon.connect() as client:
        assert llama_cpp.profile_for(client, worker) == ""
        for directory, about in ((tmp_path / "other", {"weights": "ab" * 32, "model": worker.name}), (tmp_path, {"weights": digest})):
            path = calibrate(directory, **about)
            path = path.rename(path.with_name(f"{directory.name}.kvtc.safetensors"))
            shutil.copy(path, profiles)
            identifier = client.load_profile(path.name)["id"]
            assert llama_cpp.profile_for(client, worker) == (identifier if about["weights"] == digest else "")


def test_samples_of_other_weights_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    calibrate(tmp_path / "other", weights="ab" * 32)
    with pytest.raises(AssertionError, match="comes from other weights"):
        calibrate(tmp_path, str(tmp_path / "other" / "samples.safetensors"), weights="cd" * 32)


def test_adapters_and_scales_never_share(client: Client, worker: LlamaWorker, tmp_path: Path) -> None:
    a, b = tmp_path / "a.gguf", tmp_path / "b.gguf"
    for seed, path in enumerate((a, b)):
        write_adapter(path, seed)
    choices = [{}, {a: 1.0}, {a: 0.5}, {b: 1.0}, {a: 1.0, b: 1.0}]
    sessions, states = [], []
    for choice in choices:
        worker.set_adapters(choice)
        sessions.append(session_of(client, worker))
        assert llama_cpp.restore(sessions[-1], worker, TOKENS) == 0
        worker.prefill(TOKENS)
        assert llama_cpp.offload(sessions[-1], worker, TOKENS).stored == FULL // PAGE
        states.append(worker.get_state().to_bytes())
    write_adapter(a, 7)
    worker.set_adapters({a: 1.0})
    assert llama_cpp.restore(session_of(client, worker), worker, TOKENS) == 0
    write_adapter(a, 0)
    for choice, session, state in zip(choices, sessions, states):
        worker.set_adapters(choice)
        assert llama_cpp.restore(session, worker, TOKENS) == FULL and worker.get_state().to_bytes() == state


def test_nothing_to_offload_is_no_refusal(client: Client, worker: LlamaWorker) -> None:
    session = session_of(client, worker)
    worker.clear()
    assert llama_cpp.offload(session, worker, []) == llama_cpp.Offload(0)


def test_a_session_of_other_adapters_is_of_no_use(client: Client, worker: LlamaWorker, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_adapter(path, 3)
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    llama_cpp.offload(session, worker, TOKENS)
    worker.set_adapters({path: 1.0})
    expected = worker.prefill(TOKENS).copy()
    done = llama_cpp.offload(session, worker, TOKENS)
    assert (done.pages, done.stored, done.present, done.refused) == (FULL // PAGE, 0, 0, FULL // PAGE)
    assert "other weights, adapters" in done.reason
    worker.clear()
    assert llama_cpp.restore(session, worker, TOKENS) == 0
    np.testing.assert_array_equal(llama_cpp.resume(session, worker, TOKENS), expected)


def test_a_session_without_identity_is_of_no_use(client: Client, worker: LlamaWorker) -> None:
    session = client.open_session("raw", geometry=llama_cpp.wire_geometry(worker.geometry), page_tokens=PAGE)
    worker.prefill(TOKENS)
    assert llama_cpp.offload(session, worker, TOKENS).refused == FULL // PAGE and kept(session, TOKENS) == 0
    worker.clear()
    assert llama_cpp.restore(session, worker, TOKENS) == 0


def test_a_cache_that_is_not_f16_is_refused(client: Client, worker: LlamaWorker) -> None:
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    llama_cpp.offload(session, worker, TOKENS)
    for cache in ("q8_0", "q4_0"):
        other = worker.sibling(cache)
        with pytest.raises(kvtc.KvtcError, match=f"holds {cache}, and the state of such a cache cannot be read"):
            session_of(client, other)
        expected = other.prefill(TOKENS).copy()
        other.clear()
        np.testing.assert_array_equal(llama_cpp.resume(session, other, TOKENS), expected)
        assert llama_cpp.offload(session, other, TOKENS).refused == FULL // PAGE
        other.close()


def test_models_whose_rope_is_measured_share_without_a_profile(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, "llama", factors=True)
    with opened(path) as one, LlamaWorker(path, context=256, threads=2) as other:
        assert one.geometry.rope.base is None
        one.prefill(TOKENS)
        llama_cpp.offload(session_of(client, one), one, TOKENS)
        assert llama_cpp.restore(session_of(client, other), other, TOKENS) == FULL


# The cache is the one of the tokens


def test_a_prompt_without_tokens_changes_nothing(client: Client, worker: LlamaWorker) -> None:
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    for empty in ([], (), np.array([], np.int32)):
        with pytest.raises(ValueError, match="no tokens to compute"):
            llama_cpp.resume(session, worker, empty)
        assert worker.position == worker.matching(TOKENS) == FULL
        assert llama_cpp.offload(session, worker, empty) == llama_cpp.Offload(0)
    assert llama_cpp.restore(session, worker, []) == 0 == worker.position
    np.testing.assert_array_equal(worker.get_state().positions if worker.prefill(TOKENS) is not None else 0, range(FULL))
    assert llama_cpp.offload(session, worker, TOKENS).stored == FULL // PAGE


@pytest.mark.parametrize(
    "named",
    [OTHERS, OTHERS[:1] + TOKENS[1:], TOKENS[:-1] + OTHERS[:1], TOKENS + OTHERS[:1], TOKENS[1:], TOKENS[40:] + TOKENS[:40]],
    ids=["others", "first", "last", "longer", "shifted by one", "turned"],
)
def test_a_cache_of_other_tokens_is_not_kept_as_theirs(client: Client, worker: LlamaWorker, named: list[int]) -> None:
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    with pytest.raises(CacheMismatch, match="tokens"):
        llama_cpp.offload(session, worker, named)
    assert kept(session, named) == 0 and worker.position == worker.matching(TOKENS) == FULL
    assert llama_cpp.offload(session, worker, TOKENS).stored == FULL // PAGE


@pytest.mark.parametrize("tokens", [[0.5] * 80, [TOKENS], [2**32 + 1] * 80, [-200] * 80, [VOCABULARY] * 80], ids=lambda t: str(t[0])[:9])
def test_what_are_no_tokens_is_refused_everywhere(client: Client, worker: LlamaWorker, tokens: list) -> None:
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    for act in (llama_cpp.resume, llama_cpp.restore, llama_cpp.offload):
        with pytest.raises(ValueError):
            act(session, worker, tokens)
        assert worker.position == worker.matching(TOKENS) == FULL


def test_an_empty_cache_is_nobodys(client: Client, worker: LlamaWorker) -> None:
    session = session_of(client, worker)
    with pytest.raises(CacheMismatch, match="holds 0 tokens"):
        llama_cpp.offload(session, worker, TOKENS)


def test_edited_and_regenerated_conversations_are_kept_as_they_are(client: Client, worker: LlamaWorker) -> None:
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    llama_cpp.offload(session, worker, TOKENS)
    edited = TOKENS[:40] + OTHERS[:40]
    worker.truncate(40)
    with pytest.raises(CacheMismatch):
        llama_cpp.offload(session, worker, TOKENS)
    expected = worker.prefill(OTHERS[:40]).copy()
    done = llama_cpp.offload(session, worker, edited)
    assert (done.present, done.stored, done.refused) == (2, 3, 0), done
    # Back to what it was, from what is kept of it; and the edited one is still there.
    llama_cpp.resume(session, worker, TOKENS)
    assert worker.position == worker.matching(TOKENS) == FULL
    assert llama_cpp.offload(session, worker, TOKENS).present == FULL // PAGE
    worker.clear()
    np.testing.assert_allclose(llama_cpp.resume(session, worker, edited), expected, atol=1e-2)


def test_pages_that_are_gone_are_kept_anew_by_the_next_turn(make_daemon, worker: LlamaWorker) -> None:
    """Dropped, or let go when their time was over: the session goes on from its beginning."""
    with make_daemon().connect() as client:
        session = session_of(client, worker)
        keys = kvtc.page_keys(TOKENS, PAGE, session.profile)
        worker.prefill(TOKENS[:64])
        assert llama_cpp.offload(session, worker, TOKENS[:64]).stored == 4
        for gone in (keys[:4], keys[1:2], keys[:1]):
            client.drop(gone)
            assert llama_cpp.offload(session, worker, TOKENS[:64]).stored == len(gone)
        client.drop(keys)
        worker.prefill(TOKENS[64:])
        assert llama_cpp.offload(session, worker, TOKENS).stored == FULL // PAGE
        worker.clear()
        assert llama_cpp.restore(session, worker, TOKENS) == FULL


def test_shifted_keys_are_kept_under_no_name(client: Client, worker: LlamaWorker) -> None:
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    shift(worker, 10, 42, -32)
    worker.prefill(OTHERS[:1])
    shortened = TOKENS[:10] + TOKENS[42:] + OTHERS[:1]
    assert worker.position == len(shortened)
    done = llama_cpp.offload(session, worker, shortened)
    assert (done.pages, done.stored, done.refused) == (3, 0, 3) and "shifted or removed" in done.reason
    assert kept(session, shortened) == 0
    # The next turn computes what it needs, and is kept.
    llama_cpp.resume(session, worker, shortened)
    assert llama_cpp.offload(session, worker, shortened).stored == 3


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_cells_that_moved_within_their_sequence_are_computed_and_not_kept(
    client: Client, worker: LlamaWorker, moves: list[tuple[int, int, int]]
) -> None:
    session = session_of(client, worker)
    tokens = TOKENS[:64]
    expected = worker.prefill(tokens).copy()
    for begin, end, distance in moves:
        move(worker, begin, end, distance)
    done = llama_cpp.offload(session, worker, tokens)
    assert (done.stored, done.refused) == (0, 4) and done.reason
    assert kept(session, tokens) == 0
    np.testing.assert_array_equal(llama_cpp.resume(session, worker, tokens), expected)
    assert llama_cpp.offload(session, worker, tokens).stored == 4


def test_rows_of_a_lossy_session_do_not_become_exact(client: Client, worker: LlamaWorker) -> None:
    lossy = session_of(client, worker, policy=kvtc.Policy(mode="quant4", sink=0, window=0))
    exact = session_of(client, worker, policy=kvtc.Policy(mode="lossless"))
    worker.prefill(TOKENS)
    llama_cpp.offload(lossy, worker, TOKENS)
    worker.clear()
    assert llama_cpp.restore(lossy, worker, TOKENS) == FULL
    lossy.drop(kvtc.page_keys(TOKENS, PAGE))
    done = llama_cpp.offload(exact, worker, TOKENS)
    assert done.refused == FULL // PAGE and "lossy" in done.reason
    worker.clear()
    worker.prefill(TOKENS)
    assert llama_cpp.offload(exact, worker, TOKENS).stored == FULL // PAGE


def test_pages_that_hold_no_numbers_are_told(client: Client, worker: LlamaWorker) -> None:
    session = session_of(client, worker)
    worker.prefill(TOKENS)
    state = worker.get_state()
    sick = state.copy()
    sick.keys[1][20] = np.nan
    sick.values[0][50] = np.inf
    worker.set_state(sick)
    done = llama_cpp.offload(session, worker, TOKENS)
    assert (done.pages, done.stored, done.non_finite, done.refused) == (5, 3, 2, 0)
    assert [index for index, outcome in enumerate(done.outcomes) if outcome == PushOutcome.NON_FINITE] == [1, 3]


def test_a_state_says_what_it_is_of_wherever_it_goes(worker: LlamaWorker) -> None:
    worker.prefill(TOKENS)
    state = worker.get_state()
    assert state.origin and list(state.origin.tokens) == TOKENS
    assert state.copy().origin == state.origin and state.first(20).origin == replace(state.origin, tokens=tuple(TOKENS[:20]))
