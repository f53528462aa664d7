"""Pages under an engine's own keys, against a real daemon that starts late, ends early, and refuses."""

import hashlib
import logging
import os
import signal

import numpy as np
import pytest

import kvtc
from kvtc.adapters.keyed import KeyedPages
from kvtc.adapters.options import Options
from kvtc.adapters.sessions import CacheForm
from kvtc.adapters.weights import model_directory, model_files, weights_digest
from kvtc.transport import deadline

import synthetic

SIZE = 64
ROWS = 10 * SIZE
FORM = CacheForm(kvtc.Identity(bytes(32)), synthetic.GEOMETRY, 512, synthetic.LAYOUT)


def keys(count, of="a"):
    return [hashlib.sha256(f"{of} {index}".encode()).digest() for index in range(count)]


@pytest.fixture(scope="module")
def pages():
    """Ten pages of one sequence, as bytes."""
    tensors = synthetic.cache(ROWS, 3)
    made = []
    for first in range(0, ROWS, SIZE):
        page = np.zeros(SIZE * 512, np.uint8)
        for name, view in synthetic.LAYOUT.views(synthetic.GEOMETRY, SIZE, page).items():
            view[...] = tensors[name][first : first + SIZE]
        made.append(page)
    return made


@pytest.fixture
def make(daemon):
    made = []

    def keyed(form=FORM, socket=None, **given):
        made.append(KeyedPages(Options.parse({"socket": socket or daemon.socket} | given), form, "test", SIZE))
        return made[-1]

    yield keyed
    for one in made:
        one.close()


def brought(keyed, names):
    back = {}
    arrived = keyed.get(names, lambda index, page: back.__setitem__(index, page.copy()))
    assert sorted(back) == np.flatnonzero(arrived).tolist()
    return back


def test_pages_come_back_wherever_they_stand_among_the_keys(make, pages):
    keyed, names = make(), keys(10)
    assert keyed.set(names[:3], pages.__getitem__).all()
    assert keyed.contains([names[5], names[1]]).tolist() == [False, True]
    back = brought(keyed, [names[7], names[2], names[8], names[0]])
    assert sorted(back) == [1, 3]
    assert np.array_equal(back[1], pages[2]) and np.array_equal(back[3], pages[0])
    assert keyed.drop(names[:2]) == 2 and keyed.contains(names[:3]).tolist() == [False, False, True]
    assert keyed.counters.snapshot() == {"looked_up": 5, "found": 2, "asked": 4, "brought": 2, "offered": 3, "kept": 3}


def test_pages_of_another_identity_are_never_met(make, pages):
    make().set(keys(2), pages.__getitem__)
    other = CacheForm(kvtc.Identity(bytes(32), part="tp1/2"), FORM.geometry, 512, FORM.layout)
    assert not make(other).contains(keys(2)).any()


def test_more_pages_than_a_lap_without_positions(make, pages, monkeypatch):
    monkeypatch.setattr("kvtc.adapters.keyed._LAP", 4)
    keyed = make()
    for start in range(0, 10, 2):
        assert keyed.set(keys(10)[start : start + 2], lambda index, start=start: pages[start + index]).all()
    assert all(np.array_equal(page, pages[index]) for index, page in brought(keyed, keys(10)).items())
    assert keyed.contains(keys(10)).all()


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return synthetic.calibrate(tmp_path_factory.mktemp("profile"))


def test_each_sequence_has_a_window_of_its_own(make, daemon, pages, profile):
    """Two sequences that grow by turns: what left a window is coded, the window of each stays exact."""
    with daemon.connect() as client:
        identifier = client.load_profile(profile)["id"]
        keyed = make(mode="transform", ratio=8, window=SIZE, sink=4, profile=identifier)
        for index in range(10):
            for of in "ab":
                names = keys(10, of)
                before = names[index - 1] if index else None
                assert keyed.set([names[index]], lambda _, index=index: pages[index], index * SIZE, before).all()
        client.flush()
        for of in "ab":
            back = brought(keyed, keys(10, of))
            same = [np.array_equal(back[index], pages[index]) for index in range(10)]
            assert same == [False] * 9 + [True]


def test_a_daemon_that_is_away_is_a_miss_and_found_when_it_comes(make, make_daemon, pages, monkeypatch, caplog):
    monkeypatch.setattr(deadline.Breaker, "FIRST", 0.0)
    daemon = make_daemon()
    assert daemon.stop() == 0
    keyed = make(socket=daemon.socket, deadline=1.0)
    with caplog.at_level(logging.WARNING, "kvtc"):
        assert not keyed.set(keys(3), pages.__getitem__).any()
        assert not keyed.contains(keys(3)).any() and not brought(keyed, keys(3))
    assert "going on without kvtcd" in caplog.text
    daemon.start()
    assert keyed.set(keys(3), pages.__getitem__).all()
    assert daemon.restart()
    assert sorted(brought(keyed, keys(3))) == [0, 1, 2]
    with daemon.stopped():
        assert not keyed.contains(keys(3)).any()
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not brought(keyed, keys(3))
    daemon.start()


def test_a_process_that_was_forked_connects_by_itself(make, pages):
    keyed = make()
    assert keyed.set(keys(1), pages.__getitem__).all()
    child = os.fork()
    if not child:
        os._exit(0 if keyed.contains(keys(2)).tolist() == [True, False] and keyed.set(keys(2), pages.__getitem__).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert keyed.contains(keys(2)).all()


def test_what_kvtcd_refuses_is_said_once_and_asked_no_more(make, caplog):
    keyed = make(mode="transform")
    for _ in range(3):
        assert not keyed.contains(keys(1)).any()
    assert caplog.text.count("keeps nothing of test") == 1 and "kvtcctl calibrate" in keyed.refusal


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "zip"}, "mode"),
        ({"ratio": 8, "distortion": 0.01}, "exclude"),
        ({"deadline": 0}, "'deadline'"),
        ({"deadline": True}, "'deadline'"),
        ({"sink": -1}, "sink"),
        ({"socket": 7}, "'socket'"),
    ],
)
def test_options_that_no_policy_can_have_are_refused_by_name(given, said):
    with pytest.raises(ValueError, match=said):
        Options.parse(given)


def test_options_that_nothing_knows_are_warned_of(caplog):
    options = Options.parse({"windw": 3, "ratio": 12, "module_path": "x"}, ignored={"module_path"})
    assert "'windw'" in caplog.text and "module_path" not in caplog.text
    assert options.policy == kvtc.Policy(quality=12)


def test_a_model_is_named_by_the_content_of_its_files(tmp_path):
    for number in range(2):
        (tmp_path / f"model-{number}.safetensors").write_bytes(bytes([number]) * 100)
    (tmp_path / "pytorch_model.bin").write_bytes(b"the same once more")
    digest = weights_digest(model_files(model_directory(str(tmp_path))))
    (tmp_path / "model-1.safetensors").rename(tmp_path / "model-7.safetensors")
    assert weights_digest(model_files(tmp_path)) == digest
    (tmp_path / "model-7.safetensors").write_bytes(b"other weights")
    assert weights_digest(model_files(tmp_path)) != digest
    one = tmp_path / "pytorch_model.bin"
    assert weights_digest(model_files(one)) == hashlib.sha256(one.read_bytes()).digest()
    with pytest.raises(ValueError, match="option 'model'"):
        model_directory("nobody/has-this-model")
