"""SGLang's host pools as pages of kvtcd, and its storage backend against a real daemon; pools made of numpy where SGLang is not
installed (`deploy/engines sglang` has the real ones)."""

import hashlib
import itertools
import logging
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from kvtc import Element, Grouping, Order
from kvtc.adapters import keyed
from kvtc.adapters.options import Options
from kvtc.adapters.sglang import HostPages, KvtcStorage, identity
from kvtc.adapters.sglang.identity import rank_name

PAGE, LAYERS, HEADS, WIDTH = 16, 3, 2, 8
LAYOUTS = ["page_first_direct", "page_first", "layer_first"]


class MHATokenToKVPoolHost:
    """What the adapter reads of SGLang's pool of that name: [2, layers, tokens, heads, width] in one of its layouts."""

    roles = (2,)

    def __init__(self, layout, dtype="float16", pages=6):
        self.layout, self.dtype, self.page_size, self.size = layout, f"torch.{dtype}", PAGE, PAGE * pages
        self.layer_num = self.target_layer_num = LAYERS
        self.start_layer, self.head_num, self.head_dim, self.v_head_dim = 0, HEADS, WIDTH, WIDTH
        element = {"float16": np.float16, "float32": np.float32, "uint8": np.uint8, "bfloat16": np.uint16}[dtype]
        self.make(element)

    def leading(self):
        return {
            "layer_first": (LAYERS, self.size),
            "page_first": (self.size, LAYERS),
            "page_first_direct": (self.size // PAGE, LAYERS, PAGE),
        }[self.layout]

    def make(self, element):
        self.kv_buffer = np.zeros((2, *self.leading(), HEADS, WIDTH), element)

    def tensors(self):
        """Views [tensors, layers, tokens, heads, width], whatever the layout."""
        return [_by_layer(self.kv_buffer, self.layout)]


class AsymmetricMHATokenToKVPoolHost(MHATokenToKVPoolHost):
    def make(self, element):
        self.v_head_dim = 4
        self.k_buffer, self.v_buffer = (np.zeros((*self.leading(), HEADS, width), element) for width in (WIDTH, 4))
        self.kv_buffer = (self.k_buffer, self.v_buffer)

    def tensors(self):
        return [_by_layer(buffer[None], self.layout) for buffer in self.kv_buffer]


class MLATokenToKVPoolHost(MHATokenToKVPoolHost):
    def make(self, element):
        self.kv_lora_rank, self.qk_rope_head_dim, self.kv_cache_dim = 10, 6, 16
        self.kv_buffer = np.zeros((*self.leading(), 1, 16), element)

    def tensors(self):
        return [_by_layer(self.kv_buffer[None], self.layout)]


def _by_layer(buffer, layout):
    if layout == "page_first":
        return buffer.transpose(0, 2, 1, 3, 4)
    return buffer if layout == "layer_first" else _joined(buffer)


def _joined(buffer):
    """Pages [tensors, pages, layers, tokens, …] as a view whose token axis is the pool's slots cannot be had without a copy: for reading."""
    return buffer.transpose(0, 2, 1, 3, 4, 5).reshape(buffer.shape[0], LAYERS, -1, *buffer.shape[4:])


KINDS = [MHATokenToKVPoolHost, AsymmetricMHATokenToKVPoolHost, MLATokenToKVPoolHost]


def fill(pool, seed=1):
    buffers = pool.kv_buffer if isinstance(pool.kv_buffer, tuple) else (pool.kv_buffer,)
    rng = np.random.default_rng(seed)
    for buffer in buffers:
        buffer[...] = rng.integers(0, 1000, buffer.shape)


@pytest.mark.parametrize(("kind", "layout"), list(itertools.product(KINDS, LAYOUTS)))
def test_a_page_is_what_its_layout_says_and_comes_back_to_its_place(kind, layout):
    if kind is AsymmetricMHATokenToKVPoolHost and layout == "layer_first":
        pytest.skip("SGLang has no such pool")
    source, target = kind(layout), kind(layout)
    fill(source)
    pages = HostPages(source)
    page = pages.page(2 * PAGE)
    views = pages.layout.views(pages.geometry, PAGE, page)
    for tensor in pages.geometry.tensors:
        whole = source.tensors()
        rows = whole[0] if len(whole) == 1 else whole[int(tensor.role) % 2]
        role = int(tensor.role) % 2 if len(whole) == 1 else 0
        assert np.array_equal(views[tensor.layer, tensor.role], rows[role, tensor.layer, 2 * PAGE : 3 * PAGE])
    HostPages(target).place(4 * PAGE, page)
    for found, wanted in zip(target.tensors(), source.tensors()):
        assert np.array_equal(found[:, :, 4 * PAGE : 5 * PAGE], wanted[:, :, 2 * PAGE : 3 * PAGE])
        assert not found[:, :, : 4 * PAGE].any() and not found[:, :, 5 * PAGE :].any()


def test_the_form_of_a_pool():
    pool = MHATokenToKVPoolHost("page_first", "bfloat16")
    pool.start_layer = 5
    pages = HostPages(pool)
    assert (pages.layout.element, pages.layout.order) == (Element.BF16, Order.TOKEN_TENSOR_HEAD)
    assert pages.layout.grouping == Grouping.ROLES_APART and pages.token_bytes == 2 * LAYERS * HEADS * WIDTH * 2
    assert sorted({tensor.layer for tensor in pages.geometry.tensors}) == [5, 6, 7]
    assert HostPages(MHATokenToKVPoolHost("layer_first")).layout.order == Order.TENSOR_TOKEN_HEAD


def changed(**values):
    pool = MHATokenToKVPoolHost("page_first_direct")
    for name, value in values.items():
        setattr(pool, name, value)
    return pool


class SomeOtherHost(MHATokenToKVPoolHost):
    pass


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (changed(layout="page_head"), "layout 'page_head'"),
        (SomeOtherHost("layer_first"), "SomeOtherHost"),
        (changed(dtype="torch.int4"), "int4"),
        (changed(dcp_size=2), "decode-context"),
        (changed(target_layer_num=2), "draft model"),
        (changed(kv_buffer=None), "no memory"),
        (changed(head_dim=WIDTH * 2), "shape"),
        (changed(kv_buffer=np.zeros((2, 6, PAGE, LAYERS, HEADS, WIDTH), np.float16)), "shape"),
    ],
)
def test_a_pool_that_is_not_known_is_refused_in_a_sentence(pool, said):
    with pytest.raises(ValueError, match=said):
        HostPages(pool)


@pytest.mark.parametrize("slots", [range(5), [*range(15), 20], range(8, 24), range(96, 112), [15 - n for n in range(16)]])
def test_slots_that_are_no_whole_pages_are_refused(slots):
    with pytest.raises(ValueError):
        HostPages(changed()).first_slots(list(slots), 1)


def test_ranks_are_named_and_latents_are_every_rank_s():
    config = SimpleNamespace(is_mla_model=False, tp_rank=1, tp_size=4, pp_rank=0, pp_size=2, attn_cp_rank=0, attn_cp_size=1)
    assert rank_name(config) == "tp1/4 pp0/2"
    config.is_mla_model, config.pp_size, config.attn_cp_size = True, 1, 2
    assert rank_name(config) == "cp0/2"


def test_adapters_are_named_by_content_whatever_their_paths_are_given_as(tmp_path, monkeypatch):
    for name in ("model", "a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.safetensors").write_bytes(name.encode())

    def digest(given):
        arguments = SimpleNamespace(model_path=str(tmp_path / "model"), lora_paths=given)
        monkeypatch.setattr(identity, "_arguments", lambda: arguments)
        config = SimpleNamespace(is_mla_model=False, tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1)
        return identity.origin(Options.parse({}), config, changed()).identity.digest

    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    reference = SimpleNamespace(lora_name="x", lora_path=a)
    forms = [[f"x={a}"], [a], {"x": a}, [{"lora_name": "x", "lora_path": a}], {"x": reference}]
    assert len({digest(form) for form in forms}) == 1
    assert len({digest(form) for form in ([a], [b], [a, b], None)}) == 4
    before = digest([a])
    (tmp_path / "a" / "w.safetensors").write_bytes(b"trained on")
    assert digest([a]) != before
    with pytest.raises(ValueError, match="LoRA"):
        digest([7])


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return str(tmp_path)


@pytest.fixture
def start(daemon, weights):
    made = []

    def storage(pool=None, rank=0, **options):
        extra = {"interface_v1": 1, "socket": daemon.socket, "model": weights, "deadline": 2.0} | options
        config = SimpleNamespace(
            is_mla_model=False, tp_rank=rank, tp_size=2, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, extra_config=extra
        )
        made.append(KvtcStorage(config, {}))
        made[-1].register_mem_pool_host(pool or changed())
        return made[-1]

    yield storage
    for one in made:
        one.close()


def names(count, of=""):
    return [hashlib.sha256(f"{of}{index}".encode()).hexdigest() for index in range(count)]


def slots(*pages):
    return [slot for page in pages for slot in range(page * PAGE, (page + 1) * PAGE)]


def info(prefix):
    return SimpleNamespace(prefix_keys=prefix, extra_info=None)


def test_what_one_engine_stores_another_finds(start):
    source, target = changed(), MHATokenToKVPoolHost("page_first")
    fill(source)
    first, second = start(source), start(target)
    keys = names(4)
    assert first.batch_set_v1(keys[:3], slots(0, 5, 2), info([])) == [True] * 3
    assert second.batch_exists(keys, info(None)) == 3 and second.exists(keys[2]) and not second.exists(keys[3])
    assert second.batch_get_v1(keys, slots(4, 1, 2, 3), info([])) == [True, True, True, False]
    for there, here in ((4, 0), (1, 5), (2, 2)):
        span, wanted = slice(there * PAGE, (there + 1) * PAGE), slice(here * PAGE, (here + 1) * PAGE)
        assert np.array_equal(target.tensors()[0][:, :, span], source.tensors()[0][:, :, wanted])
    assert start(target, rank=1).batch_exists(keys) == 0
    assert start(target, salt="other").batch_exists(keys) == 0
    assert start(MHATokenToKVPoolHost("page_first", "float32")).batch_exists(keys) == 0


def test_numbers_that_are_none_come_back_as_they_were(start):
    source, target = changed(), changed()
    source.kv_buffer.view(np.uint16)[...] = np.random.default_rng(2).integers(0, 1 << 16, source.kv_buffer.shape)
    target.kv_buffer = np.zeros_like(source.kv_buffer)
    assert np.isnan(source.kv_buffer).any()
    assert start(source).batch_set_v1(names(6), slots(*range(6)), info([])) == [True] * 6
    assert start(target).batch_get_v1(names(6), slots(*range(6)), None) == [True] * 6
    assert np.array_equal(source.kv_buffer.view(np.uint16), target.kv_buffer.view(np.uint16))


def test_positions_are_those_of_the_prefix(start, daemon):
    """quant8 keeps the first 20 tokens and the last 16 as they are; all others change."""
    source, target = changed(), changed()
    source.kv_buffer = np.random.default_rng(3).normal(0, 1, source.kv_buffer.shape).astype(np.float16)
    target.kv_buffer = np.zeros_like(source.kv_buffer)
    first = start(source, mode="quant8", sink=20, window=PAGE)
    keys = names(6)
    assert first.batch_set_v1(keys[:2], slots(0, 1), info([])) == [True] * 2
    assert first.batch_set_v1(keys[2:], slots(2, 3, 4, 5), info(keys[:2])) == [True] * 4
    with daemon.connect() as client:
        client.flush()
    assert start(target, mode="quant8", sink=20, window=PAGE).batch_get_v1(keys, slots(*range(6)), None) == [True] * 6
    rows = [np.array_equal(a, b) for a, b in zip(*(_joined(pool.kv_buffer).transpose(2, 0, 1, 3, 4) for pool in (source, target)))]
    assert rows == [True] * 20 + [False] * (5 * PAGE - 20) + [True] * PAGE


@pytest.mark.parametrize(("options", "kept"), [({"mode": "quant8"}, False), ({"mode": "quant8", "sink": 0, "window": 0}, True), ({}, True)])
def test_without_positions_only_what_needs_none(start, options, kept, caplog):
    storage = start(**options)
    for _ in range(2):
        assert storage.batch_set_v1(names(1), slots(0), info(None)) == [kept]
    assert caplog.text.count("hicache_storage_pass_prefix_keys") == (0 if kept else 1)


def test_fp8_as_plain_bytes_is_lossless_only(start):
    pool = MHATokenToKVPoolHost("page_first_direct", "uint8")
    assert start(pool).batch_set_v1(names(1), slots(0), None) == [True]
    with pytest.raises(ValueError, match="plain bytes"):
        start(pool, mode="quant8", sink=0, window=0)


def test_a_configuration_that_cannot_be_served_is_refused_when_the_engine_starts(start):
    with pytest.raises(ValueError, match="interface_v1"):
        start(interface_v1=0)
    with pytest.raises(ValueError, match="mode"):
        start(mode="zip")
    with pytest.raises(ValueError, match="option 'model'"):
        start(model="")
    with pytest.raises(ValueError, match="mamba"):
        start().register_mem_host_pool_v2(changed(), "mamba")


def test_nothing_raises_into_the_engine(start, daemon, monkeypatch, caplog):
    storage = start()
    assert storage.batch_set_v1(names(2), slots(0, 1), info([])) == [True, True]
    assert storage.batch_get_v1(["no digest"], slots(0), None) == [False]
    assert storage.batch_get_v1(names(2), slots(0), None) == [False, False]
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "kvtc"):
        patch.setattr(keyed.KeyedPages, "get", lambda *_: 1 / 0)
        assert storage.batch_get_v1(names(2), slots(0, 1), None) == [False, False]
        assert "bringing 2 pages failed" in caplog.text
    with daemon.connect() as client:
        client.flush()
    with daemon.stopped():
        assert storage.batch_exists(names(2)) == 0
        assert storage.batch_get_v1(names(2), slots(0, 1), None) == [False, False]
        assert storage.batch_set_v1(names(2), slots(0, 1), info([])) == [False, False]
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert start().batch_exists(names(2)) == 0
    daemon.start()
    assert start().batch_exists(names(2)) == 2
