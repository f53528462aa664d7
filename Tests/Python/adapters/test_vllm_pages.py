"""vLLM's blocks as pages: both sides of the connector against a real daemon, without the engine (`deploy/engines vllm` has it)."""

import signal

import pytest

torch = pytest.importorskip("torch")

from kvtc.adapters.vllm import connector, tier
from kvtc.adapters.vllm.attention import UnknownLayout
from kvtc.adapters.vllm.layout import group_cache
from kvtc.adapters.vllm.pages import Plan, Transfer
from kvtc.adapters.vllm.scheduler import SchedulerSide
from kvtc.adapters.vllm.settings import Settings, WishList
from kvtc.adapters.vllm.worker import WorkerSide

import fake_vllm as vllm

PAGE = 64


def group(backend, **given):
    caches = vllm.caches(**given)
    modules = {name: vllm.SimpleNamespace(impl=backend()) for name in vllm.LAYERS}
    specs = dict.fromkeys(vllm.LAYERS, vllm.FullAttentionSpec())
    first = next(iter(caches.values()))
    return caches, group_cache(vllm.LAYERS, caches, specs, modules, "auto", first.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", [vllm.SideBySide, vllm.KeysTransposed, vllm.Scrambled])
@pytest.mark.parametrize("block", [vllm.BLOCK, vllm.BLOCK // 2])
def test_rows_are_where_the_backend_puts_them(backend, dtype, block):
    caches, cache = group(backend, dtype=dtype, block=block)
    kernel_blocks = vllm.BLOCK // block
    rows = torch.randn(PAGE, vllm.HEADS, vllm.WIDTH).to(dtype)
    for number, name in enumerate(vllm.LAYERS):
        # Blocks 5 and 2, of so many of the kernel's each.
        slots = torch.cat([torch.arange(vllm.BLOCK) + 5 * vllm.BLOCK, torch.arange(vllm.BLOCK) + 2 * vllm.BLOCK])
        backend().do_kv_cache_update(None, rows + number, -rows - number, caches[name], slots)
    (page,) = cache.gather([5, 2], 1)
    assert cache.split == kernel_blocks and page.numel() == PAGE * cache.token_bytes
    views = cache.layout.views(cache.geometry, PAGE, page.numpy())
    for (layer, role), view in views.items():
        expected = (rows + layer) * (1 if role == 0 else -1)
        assert torch.equal(torch.from_numpy(view.copy()).view(dtype), expected)
    # Into other blocks, one of which is not wanted.
    before = {name: cache_of.clone() for name, cache_of in caches.items()}
    cache.scatter(page[page.numel() // 3 :], range(1, 3), [7, 0])
    for number, name in enumerate(vllm.LAYERS):
        seven, five = (caches[name][at * kernel_blocks : (at + 1) * kernel_blocks] for at in (7, 5))
        assert torch.equal(seven, five) == (number > 0)
        assert torch.equal(caches[name][:kernel_blocks], before[name][:kernel_blocks])
        assert not before[name][:kernel_blocks].any(), "rows were left in the block that no request has"


def test_a_backend_that_keeps_something_else_is_refused():
    with pytest.raises(UnknownLayout, match="something else than the numbers of K and V"):
        group(vllm.Smoothed)
    caches, _ = group(vllm.SideBySide)
    with pytest.raises(UnknownLayout, match="MambaSpec"):
        group_cache(vllm.LAYERS, caches, dict.fromkeys(vllm.LAYERS, vllm.MambaSpec()), {}, "auto", torch.float32)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "model"


@pytest.fixture
def make(daemon, model):
    """Both sides of one engine: its scheduler's, its worker's, and the worker's caches."""
    made = []

    def engine(backend=vllm.SideBySide, dtype=torch.float32, path=None, **given):
        options = {"socket": daemon.socket, "deadline": 20.0, "lookup_ms": 20000} | given
        settings, wishes = Settings.parse(options), WishList(options)
        worker = WorkerSide(settings, wishes, vllm.config(path or model, backend), vllm.groups(), PAGE)
        caches = vllm.caches(dtype=dtype)
        worker.register(caches)
        scheduler = SchedulerSide(settings, wishes, [vllm.BLOCK], PAGE, 1)
        if worker.parts:
            scheduler.meet([worker.parts])
        made.extend([scheduler, worker])
        return scheduler, worker, caches

    yield engine
    for side in made:
        side.close()


def fill(caches, blocks):
    for cache in caches.values():
        cache[blocks] = torch.randn(cache[blocks].shape).to(cache.dtype)


def send(engine, request, blocks):
    """A step that computes the request; returns when the daemon has it."""
    scheduler, worker, _ = engine
    assert scheduler.matched(request, 0) == (0, False)
    plan = scheduler.step(vllm.step(new=[(request, (blocks,), 0, request.num_tokens)]))
    worker.save(plan)
    # What waits is sent before a thread ends.
    worker._pusher.close()
    return plan


def load(engine, request, blocks, expected):
    scheduler, worker, _ = engine
    tokens, is_async = scheduler.matched(request, 0)
    assert tokens == expected
    scheduler.allocated(request, (blocks,), tokens)
    plan = scheduler.step(vllm.step())
    worker.start(plan)
    if is_async:
        for one in worker._apart.values():
            one.finish()
        assert worker.finished() == {request.request_id}
    else:
        for name in vllm.LAYERS:
            worker.wait(name)
        worker.save(plan)
    return worker.failed_blocks()


@pytest.mark.parametrize("layerwise", [False, True])
def test_a_prompt_comes_back_in_another_engine_as_it_was(make, layerwise):
    first, second = make(), make(backend=vllm.KeysTransposed, layerwise=layerwise)
    request = vllm.Request("r", range(200))
    fill(first[2], [3, 9, 4, 8, 5, 6, 7])
    send(first, request, [3, 9, 4, 8, 5, 6, 7])
    assert load(second, vllm.Request("s", range(200)), [10, 11, 12, 13, 14, 15, 16], 192) == set()
    (_, one, _), (_, other, _) = first, second
    assert torch.equal(one._groups[0].gather([3, 9, 4, 8, 5, 6], 3), other._groups[0].gather([10, 11, 12, 13, 14, 15], 3))
    assert not other._groups[0].gather([16], 1).any(), "the page that was not full came from nowhere"


def test_what_a_killed_daemon_does_not_bring_is_reported_by_blocks(make, daemon):
    first, second = make(), make(deadline=3.0)
    fill(first[2], [1, 2, 3, 4])
    send(first, vllm.Request("r", range(128)), [1, 2, 3, 4])
    scheduler, worker, _ = second
    request = vllm.Request("s", range(128))
    tokens, _ = scheduler.matched(request, 0)
    scheduler.allocated(request, ([5, 6, 7, 8],), tokens)
    daemon.stop(signal.SIGKILL)
    worker.start(scheduler.step(vllm.step()))
    for one in worker._apart.values():
        one.finish()
    assert worker.finished() == {"s"} and worker.failed_blocks() == {5, 6, 7, 8}
    assert scheduler.matched(vllm.Request("t", range(128)), 0) == (0, False)


def test_a_step_whose_load_failed_sends_nothing(make, daemon):
    first, second = make(), make(deadline=3.0, layerwise=True)
    fill(first[2], [1, 2])
    send(first, vllm.Request("r", range(64)), [1, 2])
    scheduler, worker, _ = second
    request = vllm.Request("s", range(140))
    tokens, is_async = scheduler.matched(request, 0)
    assert (tokens, is_async) == (64, False)
    scheduler.allocated(request, ([5, 6, 7, 8, 9],), tokens)
    with daemon.stopped():
        plan = scheduler.step(vllm.step(new=[(request, ([5, 6, 7, 8, 9],), 64, 76)]))
        assert plan.saves
        worker.start(plan)
        worker.save(plan)
        assert worker._staged == 0 and worker.failed_blocks() == {5, 6}
    # vLLM computes it from there: all of it is sent.
    again = scheduler.step(vllm.step(cached=[(request, None, 0, 140, False)]))
    assert [(save.first, len(save.keys)) for save in again.saves] == [(0, 2)]


def test_the_scheduler_does_not_wait_for_a_daemon_that_is_stuck(make, daemon):
    scheduler, _, _ = make(deadline=1.0, lookup_ms=1)
    with daemon.stopped():
        request = vllm.Request("r", range(128))
        answers = [scheduler.matched(request, 0)]
        while answers[-1][0] is None:
            answers.append(scheduler.matched(request, 0))
        assert answers[0] == (None, False) and answers[-1] == (0, False)


@pytest.mark.parametrize("change", ["weights", "element type", "rank"])
def test_engines_that_compute_otherwise_meet_none_of_its_pages(make, model, tmp_path, change):
    first = make()
    fill(first[2], [1, 2])
    send(first, vllm.Request("r", range(64)), [1, 2])
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"other weights")
    if change == "weights":
        scheduler, _, _ = make(path=other)
    elif change == "element type":
        scheduler, _, _ = make(dtype=torch.float16)
    else:
        scheduler, _, _ = make()
        settings = Settings.parse({})
        rank = WorkerSide(settings, WishList({}), vllm.config(model, rank=1, ranks=2), vllm.groups(), PAGE)
        rank.register(vllm.caches())
        scheduler.meet([rank.parts])
        rank.close()
    assert scheduler.matched(vllm.Request("s", range(64)), 0) == (0, False)


def test_an_engine_that_is_not_understood_is_left_alone(make, caplog):
    scheduler, worker, _ = make(backend=vllm.Smoothed)
    assert worker.parts is None and "nothing of this engine" in caplog.text
    assert scheduler.matched(vllm.Request("r", range(128)), 0) == (0, False)
    worker.save(Plan(saves=[Transfer("r", (bytes(32),), 0, ((1, 2),))]))


def test_ranks_that_are_missing_stop_all(make):
    _, worker, _ = make()
    alone = SchedulerSide(Settings.parse({}), WishList({}), [vllm.BLOCK], PAGE, 2)
    alone.meet([worker.parts])
    assert alone.matched(vllm.Request("r", range(128)), 0) == (0, False)
    alone.close()


def test_the_classes_that_vllm_names_can_be_read_without_it():
    assert connector.KvtcConnector.__name__ == "KvtcConnector" and tier.KvtcTier.__name__ == "KvtcTier"
