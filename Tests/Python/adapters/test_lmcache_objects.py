"""LMCache's objects as pages of kvtcd, and its adapter against a real daemon; what LMCache hands over is stood in for where it is not
installed (`deploy/engines lmcache` has the real server)."""

import itertools
import math
import os
import select
import signal
import sys
import threading
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from kvtc import Element
from kvtc.adapters.lmcache import KvtcL2Adapter, ObjectForm
from kvtc.adapters.lmcache.objects import object_key
from kvtc.adapters.lmcache.tasks import Tasks

KNOWN = (2, 3, 32, 8)
"""K and V, layers, tokens, width."""
TOLD = SimpleNamespace(shapes=[KNOWN], dtypes=["torch.float16"])
"""What LMCache says of a group's objects when it looks for some."""


@dataclass(frozen=True)
class Key:
    chunk_hash: bytes
    model_name: str = "model"
    kv_rank: int = 0
    object_group_id: int = 0
    cache_salt: str = ""


@dataclass
class Item:
    """A memory object: bytes with their shape and type."""

    shape: tuple = KNOWN
    dtype: str = "torch.float16"
    content: bytearray = field(default_factory=bytearray)

    def __post_init__(self):
        width = {"torch.float16": 2, "torch.uint8": 1, "torch.float32": 4}[self.dtype]
        self.content = self.content or bytearray(math.prod(self.shape) * width)
        self.metadata = SimpleNamespace(shape=self.shape, dtype=self.dtype, shapes=None, dtypes=None)

    @property
    def byte_array(self):
        return memoryview(self.content)

    def filled(self, seed=1):
        rng = np.random.default_rng(seed)
        if self.dtype == "torch.float16":
            self.content[:] = rng.normal(0, 1, len(self.content) // 2).astype(np.float16).tobytes()
        else:
            self.content[:] = rng.bytes(len(self.content))
        return self


class Bitmap:
    def __init__(self, size):
        self.marks = [False] * size

    def set(self, index):
        self.marks[index] = True

    def test(self, index):
        return self.marks[index]


class StoreResult(int):
    def __new__(cls, success, count):
        return super().__new__(cls, count if success else -1)


class Adapter(KvtcL2Adapter):
    """With what LMCache's base class gives."""

    def __init__(self, params):
        self.told = []
        super().__init__(params)

    def _notify_keys_stored(self, keys, sizes):
        self.told.append(("stored", len(keys), sum(sizes)))

    def _notify_keys_accessed(self, keys):
        self.told.append(("accessed", len(keys)))

    def _notify_keys_deleted(self, keys, sizes):
        self.told.append(("deleted", len(keys), sum(sizes)))

    def store(self, keys, items):
        number = self.submit_store_task(keys, items)
        return wait(self.get_store_event_fd(), lambda: self.pop_completed_store_tasks().get(number))

    def look_up(self, keys, told=None):
        number = self.submit_lookup_and_lock_task(keys, told or {})
        return wait(self.get_lookup_and_lock_event_fd(), lambda: self.query_lookup_and_lock_result(number)).marks

    def load(self, keys, items):
        number = self.submit_load_task(keys, items)
        return wait(self.get_load_event_fd(), lambda: self.query_load_result(number)).marks


def wait(descriptor, take):
    while (result := take()) is None:
        assert select.select([descriptor], [], [], 60)[0]
        os.eventfd_read(descriptor)
    return result


@pytest.fixture(autouse=True)
def lmcache(monkeypatch):
    try:
        import lmcache.lmcache_native  # noqa: F401
    except ImportError:
        stood_in = {"lmcache.lmcache_native": {"Bitmap": Bitmap}, "lmcache.v1.distributed.internal_api": {"L2StoreResult": StoreResult}}
        for name, values in stood_in.items():
            module = ModuleType(name)
            vars(module).update(values)
            monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return str(tmp_path)


@pytest.fixture
def start(daemon, weights):
    made = []

    def adapter(**options):
        made.append(Adapter({"socket": daemon.socket, "model": weights, "deadline": 2.0} | options))
        return made[-1]

    yield adapter
    for one in made:
        one.close()


def keys(count, **other):
    return [Key(bytes([index]) * 32, **other) for index in range(count)]


@pytest.mark.parametrize(
    ("shapes", "types", "is_known"),
    [
        ([KNOWN], ["torch.bfloat16"], True),
        ([(1, 3, 32, 8)], ["torch.float8_e4m3fn"], True),
        ([KNOWN], ["torch.uint8"], False),
        ([(2, 3, 8, 8)], ["torch.float16"], False),
        ([(2, 3, 2048, 8)], ["torch.float16"], False),
        ([(3, 3, 32, 8)], ["torch.float16"], False),
        ([(2, 3, 32, 8192 * 2)], ["torch.float16"], False),
        ([KNOWN, KNOWN], ["torch.float16"] * 2, False),
        ([(1000,)], ["torch.float32"], False),
        ([(999,)], ["torch.uint8"], False),
        ([(64, 1025, 1030)], ["torch.float16"], False),
    ],
)
def test_an_object_is_a_page_of_its_tensors_or_of_bytes(shapes, types, is_known):
    form = ObjectForm.of(shapes, types)
    assert form.is_known == is_known
    content = bytearray(os.urandom(form.bytes))
    page = form.page(content)
    assert page.nbytes == form.token_bytes * form.page_tokens and page.tobytes()[: form.bytes] == content
    assert not page[form.bytes :].any() and (not is_known or page.nbytes == form.bytes)
    back = bytearray(form.bytes)
    form.place(page, back)
    assert back == content
    if is_known:
        views = form.layout.views(form.geometry, form.page_tokens, page)
        whole = np.frombuffer(content, form.layout.element.dtype).reshape(shapes[0])
        for (layer, role), view in views.items():
            assert np.array_equal(view[:, 0].view(np.uint8), whole[int(role) % 2, layer].view(np.uint8))
    with pytest.raises(ValueError, match="bytes"):
        form.page(content[1:])


def test_an_element_is_that_of_the_object_where_it_is_one():
    assert ObjectForm.of([(64,)], ["torch.bfloat16"]).layout.element == Element.BF16
    assert ObjectForm.of([(64,), (64,)], ["torch.bfloat16", "torch.float32"]).layout.element == Element.E4M3


def test_no_two_keys_have_one_name():
    parts = {
        "chunk_hash": [b"a" * 32, b"a" * 31],
        "model_name": ["m", "ma"],
        "kv_rank": [0, 1 << 24],
        "object_group_id": [0, 1],
        "cache_salt": ["", "a"],
    }
    names = {object_key(Key(**dict(zip(parts, values)))) for values in itertools.product(*parts.values())}
    assert len(names) == 32


def test_what_one_server_stores_another_finds_and_loads(start):
    stored = [Item().filled(index) for index in range(3)]
    first = start()
    assert first.store(keys(3), stored) == 3 * len(stored[0].content)
    assert first.look_up(keys(4)) == [True, True, True, False]
    second = start()
    # Of an object that it has not seen it knows what LMCache says of its group.
    assert second.look_up(keys(4)) == [False] * 4
    told = {0: TOLD}
    assert second.look_up(keys(4), told) == [True, True, True, False]
    rooms = [Item() for _ in range(4)]
    assert second.load(keys(4)[::-1], rooms) == [False, True, True, True]
    assert [room.content for room in rooms[1:]] == [item.content for item in stored[::-1]]
    assert second.report_status()["objects"] == {"looked_up": 4, "found": 3, "asked": 4, "brought": 3, "offered": 0, "kept": 0}
    assert second.told == [("accessed", 3)] and first.told == [("stored", 3, 3 * len(stored[0].content))]
    first.delete([*keys(2), Key(b"x" * 32)])
    assert first.told[-1] == ("deleted", 2, 2 * len(stored[0].content)) and second.look_up(keys(3), told) == [False, False, True]


def test_what_may_not_be_met_is_not(start, tmp_path):
    first = start()
    item = Item().filled()
    first.store(keys(1), [item])
    for other in ({"model_name": "other"}, {"kv_rank": 1}, {"object_group_id": 1}, {"cache_salt": "tenant"}):
        assert first.look_up(keys(1, **other), {0: TOLD, 1: TOLD}) == [False]
        assert first.load(keys(1, **other), [Item()]) == [False]
    assert start(salt="other").load(keys(1), [Item()]) == [False]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"other weights")
    assert start(model=str(tmp_path / "other")).load(keys(1), [Item()]) == [False]
    assert first.load(keys(1), [Item(dtype="torch.float32")]) == [False]
    assert first.load(keys(1), [Item()]) == [True]


@pytest.mark.parametrize("item", [Item((999,), "torch.uint8"), Item(KNOWN, "torch.uint8"), Item((7, 100), "torch.float32"), Item(KNOWN)])
def test_bytes_of_any_kind_come_back_as_they_were(start, item):
    rng = np.random.default_rng(4)
    item.content[:] = rng.bytes(len(item.content))
    room = Item(item.shape, item.dtype)
    assert start(mode="lossless").store(keys(1), [item]) == len(item.content)
    assert start().load(keys(1), [room]) == [True] and room.content == item.content


def test_quantisers_code_tensors_and_leave_bytes_alone(start, daemon, caplog):
    tensors, other = Item((2, 3, 64, 8)).filled(), Item((999,), "torch.uint8").filled()
    adapter = start(mode="quant8")
    assert adapter.store(keys(2), [tensors, other]) == len(tensors.content) + 999
    assert "kept losslessly" in caplog.text
    with daemon.connect() as client:
        client.flush()
    rooms = [Item((2, 3, 64, 8)), Item((999,), "torch.uint8")]
    assert adapter.load(keys(2), rooms) == [True, True] and rooms[1].content == other.content
    found, wanted = (np.frombuffer(item.content, np.float16).astype(float) for item in (rooms[0], tensors))
    assert 0 < ((found - wanted) ** 2).sum() / (wanted**2).sum() < 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "transform"}, "positions"),
        ({"mode": "kvtc"}, "positions"),
        ({"window": 128}, "'window'.*positions"),
        ({"model": "nobody/has-this-model"}, "option 'model'"),
        ({"mode": "zip"}, "mode"),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused_when_lmcache_starts(options, said, weights):
    with pytest.raises(ValueError, match=said):
        Adapter({"model": weights} | options)


def test_weights_that_are_not_here_are_told_of_once_and_nothing_is_kept(daemon, caplog):
    adapter = Adapter({"socket": daemon.socket})
    try:
        for _ in range(2):
            assert adapter.store(keys(1, model_name="nobody/has-this-model"), [Item()]) == -1
        assert caplog.text.count("keeps nothing of nobody/has-this-model") == 1
    finally:
        adapter.close()


def test_short_hashes_are_told_of(start, caplog):
    adapter = start()
    assert adapter.look_up([Key(b"1234")] * 3) == [False] * 3
    assert caplog.text.count("name no content") == 1


def test_nothing_raises_into_lmcache(start, daemon, caplog):
    adapter, item = start(), Item().filled()
    assert adapter.store(keys(1), [item]) > 0
    assert adapter.store(keys(1), [object()]) == -1 and "failed; going on" in caplog.text
    assert adapter.load(keys(1), [object()]) == [False]
    with daemon.connect() as client:
        client.flush()
    with daemon.stopped():
        assert adapter.look_up(keys(1)) == [False] and adapter.load(keys(1), [Item()]) == [False]
        assert adapter.store(keys(1), [item]) == -1
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    other = start()
    assert other.load(keys(1), [Item()]) == [False]
    daemon.start()
    assert start().load(keys(1), [Item()]) == [True]
    adapter.delete(keys(1))
    assert adapter.report_status()["is_healthy"]


def test_a_task_that_is_not_taken_or_raises_has_failed():
    tasks = Tasks("test", pending=1)
    reads, writes = os.pipe()
    try:
        started = threading.Event()
        first = tasks.submit(lambda: (started.set(), os.read(reads, 1))[1], lambda: b"failed")
        # From here on one may wait, and no more.
        assert started.wait(60)
        others = [tasks.submit(lambda: b"done", lambda: b"failed") for _ in range(3)]
        os.write(writes, b"x")
        results = [wait(tasks.descriptor, lambda number=number: tasks.take(number)) for number in (first, *others)]
        assert results[0] == b"x" and results[-1] == b"failed" and tasks.take(first) is None
        raising = tasks.submit(lambda: 1 / 0, lambda: b"failed")
        assert wait(tasks.descriptor, lambda: tasks.take(raising)) == b"failed"
    finally:
        os.close(writes)
        tasks.close()
        os.close(reads)
