"""The vLLM connector with the codec on the device, by Triton's interpreter on tensors of the processor, against a real daemon."""

import pytest

pytest.importorskip("xxhash", reason="runs in an environment of its own: deploy/setup --with gpu")

import hashlib
from types import SimpleNamespace

import golden
import numpy as np
import torch
from test_decoding import sealed

import kvtc
from kvtc.adapters import coder
from kvtc.adapters.vllm.scheduler import SchedulerSide
from kvtc.adapters.vllm.settings import Settings, WishList
from kvtc.adapters.vllm.worker import WorkerSide
from kvtc.gpu import selftest
from kvtc.keys import page_keys, part_key
from kvtc.protocol.geometry import Role

import fake_vllm as vllm
import synthetic
from conftest import Daemon

# A page is one block. The interpreter decodes a few thousand symbols a second: pages and ranks are as small as can be.
PAGE = 16
NAMES = [f"model.layers.{index}.self_attn.attn" for index in range(synthetic.SHAPE["layers"])]
TOKENS, FIRST, SECOND = range(3 * PAGE), [3, 9, 4], [10, 17, 12]
DEVICE_MIB = 600
assert golden.ROOT


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A daemon with the profile of a model's weights, and an engine that has sent it the pages of `TOKENS`, coded on the device."""
    place = tmp_path_factory.mktemp("profile")
    (place / "model").mkdir()
    (place / "model" / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    profile = synthetic.calibrate(place, "--layer-groups", "2", "--rank", "12", weights=digest)
    daemon = Daemon(**{"profiles.directory": str(place)}).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm, "WIDTH", synthetic.SHAPE["head_dim"])
        patch.setattr(vllm, "LAYERS", NAMES)
        for name in ("head_size", "head_size_v"):
            patch.setattr(vllm.FullAttentionSpec, name, synthetic.SHAPE["head_dim"])
        patch.setattr(vllm.FullAttentionSpec, "block_size", PAGE)
        patch.setattr("kvtc.adapters.device.make_coder", one_coder)
        made = SimpleNamespace(daemon=daemon, profile=profile, model=place / "model", sides=[])
        made.first = engine(made)
        fill(made.first, FIRST)
        send(made.first, TOKENS, FIRST)
        yield made
        for side in made.sides:
            side.close()
    daemon.close()


made_coders = {}


def one_coder(held, device, element, most):
    """As `make_coder`, once for all tests."""
    if not made_coders:
        made_coders[element] = coder.make_coder(held, device, element, most)
    made_coders[element].is_broken = False
    return made_coders[element]


def engine(world, backend=vllm.SideBySide, **given):
    """A scheduler's side, a worker's, and caches."""
    options = {"socket": world.daemon.socket, "deadline": 600.0, "lookup_ms": 60_000, "mode": "transform", "ratio": 24, "window": PAGE}
    options |= {"codec": "device", "page_tokens": PAGE, "device_mib": DEVICE_MIB} | given
    settings, wishes = Settings.parse(options), WishList(options)
    worker = WorkerSide(settings, wishes, vllm.config(world.model, backend), vllm.groups(layers=NAMES), PAGE)
    caches = vllm.caches(dtype=torch.float16, block=PAGE, layers=NAMES)
    worker.register(caches)
    scheduler = SchedulerSide(settings, wishes, [PAGE], PAGE, 1)
    scheduler.meet([worker.parts])
    world.sides.extend([scheduler, worker])
    return scheduler, worker, caches


def fill(engine, blocks, seed=1):
    """A document's rows in the cache."""
    rows = synthetic.cache(len(blocks) * PAGE, seed)
    for number, layer in engine[1]._groups[0].layers.items():
        for role, view in zip((Role.KEY, Role.VALUE), layer.rows):
            own = torch.from_numpy(rows[number, role]).view(len(blocks), PAGE, *rows[number, role].shape[1:])
            view.view[blocks] = own.transpose(1, 2)


def send(engine, tokens, blocks):
    scheduler, worker, _ = engine
    request = vllm.Request("r", tokens)
    scheduler.matched(request, 0)
    worker.save(scheduler.step(vllm.step(new=[(request, (blocks,), 0, request.num_tokens)])))
    worker._pusher.close()


def load(engine, tokens, blocks):
    """How many tokens were found, the pages that were brought into these blocks, and the blocks that failed."""
    scheduler, worker, _ = engine
    request = vllm.Request("s", tokens)
    found, is_async = scheduler.matched(request, 0)
    assert found is not None
    scheduler.allocated(request, (blocks,), found)
    plan = scheduler.step(vllm.step())
    worker.start(plan)
    if is_async:
        for one in worker._apart.values():
            one.finish()
        assert worker.finished() == {"s"}
    else:
        for name in NAMES:
            worker.wait(name)
        worker.save(plan)
    return found, worker._groups[0].gather(blocks, len(blocks)), worker.failed_blocks()


def session_of(engine):
    (pages,) = engine[1]._pages.under(())
    return pages._session


def keys_of(tokens):
    return [part_key(key, "") for key in page_keys(tokens, PAGE)]


def counters(world):
    with world.daemon.connect() as client:
        return client.status()["counters"]


def test_pages_before_the_window_are_coded_on_the_device_and_the_others_stay_raw(world):
    found = session_of(world.first).lookup_blocks(keys_of(TOKENS)).pages
    assert [page.mode.name for page in found] == ["TRANSFORM", "TRANSFORM", "RAW"]
    assert max(found[0].length, found[1].length) < found[2].length // 4
    assert counters(world)["encoded"] == 0


@pytest.mark.parametrize(("backend", "layerwise"), [(vllm.SideBySide, False), (vllm.KeysTransposed, True)])
def test_they_come_back_the_same_by_either_codec(world, backend, layerwise):
    tokens = range(3 * PAGE + 1)
    found, mine, failed = load(engine(world, backend, layerwise=layerwise), tokens, SECOND)
    assert (found, failed) == (3 * PAGE, set())
    _, daemons, _ = load(engine(world, codec="daemon"), tokens, SECOND)
    assert torch.equal(mine, daemons)
    group = world.first[1]._groups[0]
    before = group.gather(FIRST, 3)
    for page in range(3):
        was, now = (group.layout.views(group.geometry, PAGE, bits[page].numpy()) for bits in (before, mine))
        exact = slice(0, (4, 0, PAGE)[page])
        for name, rows in now.items():
            assert np.array_equal(rows[exact].view(np.int16), was[name][exact].view(np.int16))
            assert page == 2 or not np.array_equal(rows[4:], was[name][4:])


def test_what_the_daemon_coded_comes_back_the_same_by_either_codec(world):
    first, tokens = engine(world, codec="daemon"), range(1000, 1000 + 2 * PAGE)
    fill(first, FIRST[:2], seed=2)
    send(first, tokens, FIRST[:2])
    with world.daemon.connect() as client:
        client.flush()
    assert [page.mode.name for page in session_of(first).lookup_blocks(keys_of(tokens)).pages] == ["TRANSFORM", "RAW"]
    _, mine, failed = load(engine(world), tokens, SECOND[:2])
    _, daemons, _ = load(engine(world, codec="daemon"), tokens, SECOND[:2])
    assert failed == set() and torch.equal(mine, daemons)


def test_a_bad_block_is_a_miss_of_its_page_alone(world):
    tokens, session = range(2000, 2000 + 2 * PAGE), session_of(world.first)
    (good,) = (bytes(part.data) for part in session.pull_blocks(keys_of(TOKENS)[:1]))
    bad = bytearray(good)
    bad[-1] ^= 1
    # Blocks are of the positions that their headers say: each page is a first one, under a key of the second sequence.
    with world.daemon.connect() as client:
        policy = kvtc.Policy(mode="transform", sink=4, window=0)
        identity = world.first[1].parts.forms[0].identity
        for key, block in zip(keys_of(tokens), (sealed(bad), good)):
            other = client.open_session("hostile", profile=session.profile, layout=session.layout, policy=policy, identity=identity)
            assert other.push_blocks([kvtc.Block(key, 0, PAGE, block)]) == [kvtc.PushOutcome.STORED]
    made = engine(world)
    found, mine, failed = load(made, tokens, SECOND[:2])
    assert found == 2 * PAGE and failed == {SECOND[0]} and mine[1].any()
    # One page's damage says nothing of the device.
    assert not made_coders[kvtc.Element.F16].is_broken


def test_a_toolchain_that_is_not_exact_leaves_coding_to_the_daemon(world, monkeypatch, caplog):
    monkeypatch.setattr("kvtc.adapters.device.make_coder", coder.make_coder)
    decode = selftest.reference.decode
    monkeypatch.setattr(selftest.reference, "decode", lambda *arguments: decode(*arguments) ^ 1)
    other = engine(world)
    assert len([record for record in caplog.records if "the daemon codes them" in record.getMessage()]) == 1
    found, _, failed = load(other, TOKENS, SECOND)
    assert (found, failed) == (3 * PAGE, set())


def test_a_device_that_fails_while_serving_is_a_miss_and_then_the_daemon_codes(world, monkeypatch, caplog):
    def no_memory(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    other = engine(world)
    with monkeypatch.context() as patch:
        patch.setattr("kvtc.gpu.Decoder.restore", no_memory)
        _, _, failed = load(other, TOKENS, SECOND)
    assert failed == set(SECOND) and "the daemon codes from here on" in caplog.text
    found, _, failed = load(other, TOKENS, [20, 21, 22])
    assert (found, failed) == (3 * PAGE, set())
    # Pages that cannot be coded are sent as they are.
    third, tokens = engine(world), range(5000, 5000 + 3 * PAGE)
    monkeypatch.setattr("kvtc.gpu.Encoder.encode", no_memory)
    fill(third, FIRST, seed=3)
    send(third, tokens, FIRST)
    assert load(engine(world, codec="daemon"), tokens, SECOND)[0] == 3 * PAGE


def test_the_device_s_memory_is_bounded(world, monkeypatch, caplog):
    made = made_coders[kvtc.Element.F16]
    assert made._decoder.memory() <= DEVICE_MIB << 20
    assert made._decoder.resident.bytes + made._encoder.memory() <= DEVICE_MIB << 20
    monkeypatch.setattr("kvtc.adapters.device.make_coder", coder.make_coder)
    engine(world, device_mib=1)
    assert "device_mib allows 1" in caplog.text
