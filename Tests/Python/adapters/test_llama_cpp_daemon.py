"""The llama.cpp adapter against the real daemon."""

import shutil

import numpy as np

import kvtc
from kvtc.adapters import llama_cpp
from kvtc.adapters.engine import Origin
from kvtc.adapters.geometry import ModelGeometry
from kvtc.adapters.llama_cpp.state import StateForm, blank_state
from kvtc.adapters.rope import Rope
from kvtc.calibration.predictions import SINKS, WINDOW
from kvtc_evaluation.evaluate.caches import NEAR, DaemonWay

from fake_worker import HEADER, IDENTITY, FakeWorker, filled_worker
from synthetic import cache, calibrate

TOKENS = list(range(5000, 5500))


def test_a_sequence_survives_the_daemons_restart_bit_exactly(make_daemon) -> None:
    daemon, first, second = make_daemon(), filled_worker(TOKENS), FakeWorker()
    with daemon.connect() as client, llama_cpp.open_session(client, first, "first") as session:
        done = llama_cpp.offload(session, first, TOKENS)
        assert (done.pages, done.stored) == (7, 7)
        assert llama_cpp.offload(session, first, TOKENS).present == 7
        client.flush()
    daemon.restart()
    with daemon.connect() as client, llama_cpp.open_session(client, second, "second") as session:
        assert llama_cpp.restore(session, second, TOKENS) == 448 == second.position
        for mine, theirs in zip(second.get_state().tensors(), first.get_state().tensors(), strict=True):
            assert mine.tobytes() == theirs[:448].tobytes()
        assert llama_cpp.resume(session, second, TOKENS) == "logits" and second.prefilled == TOKENS[448:]


def test_pages_travel_through_the_socket_too(make_daemon) -> None:
    daemon, first, second = make_daemon(), filled_worker(TOKENS), FakeWorker()
    with daemon.connect(arena_bytes=0) as client, llama_cpp.open_session(client, first, "inline") as session:
        llama_cpp.offload(session, first, TOKENS)
        assert llama_cpp.restore(session, second, TOKENS[:200]) == 192
        for mine, theirs in zip(second.get_state().tensors(), first.get_state().tensors(), strict=True):
            assert mine.tobytes() == theirs[:192].tobytes()


class SyntheticWorker(FakeWorker):
    """A worker whose cache is the synthetic model's."""

    def __init__(self, cells: int) -> None:
        super().__init__(ModelGeometry(4, 2, 16, 16, Rope.geometric("half_split", 0, 16, 10000.0, 4)))
        self.state_form = StateForm(HEADER, 8, (((32,) * 4, (32,) * 4),))
        if not cells:
            return
        state = blank_state(range(cells), self.state_form)
        contents = cache(cells, 9)
        for layer, (keys, values) in enumerate(zip(state.keys, state.values, strict=True)):
            keys[:] = contents[layer, kvtc.Role.KEY].reshape(cells, 32)
            values[:] = contents[layer, kvtc.Role.VALUE].reshape(cells, 32)
        state.origin = Origin(tuple(range(cells)), IDENTITY.digest)
        self.set_state(state)


def test_an_evaluation_sees_what_a_resting_window_saves_and_costs(make_daemon, tmp_path) -> None:
    daemon, worker, tokens = make_daemon(), SyntheticWorker(512), list(range(512))
    profiles = daemon.directory / "state" / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    path = calibrate(tmp_path)
    shutil.copy(path, profiles)
    exact = worker.get_state().copy()
    with daemon.connect() as client:
        identifier = client.load_profile(path.name)["id"]
        active = DaemonWay(worker, client, identifier, "transform", 16.0).keep(tokens, exact)
        resting = DaemonWay(worker, client, identifier, NEAR, 16.0, 0.002).keep(tokens, exact)
        assert client.status()["counters"]["near"] == 2
    assert active.raw == resting.raw and active.coded_stored == resting.coded_stored
    assert resting.stored < 0.6 * active.stored
    for mine, kept, near in zip(exact.tensors(), active.state.tensors(), resting.state.tensors(), strict=True):
        window, changed = (part[-WINDOW:].astype(np.float64) for part in (mine, near))
        assert (kept[-WINDOW:] == mine[-WINDOW:]).all() and (near[:SINKS] == mine[:SINKS]).all()
        assert 0 < ((window - changed) ** 2).sum() < 0.01 * (window**2).sum()
