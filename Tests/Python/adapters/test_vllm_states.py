"""Models with state-space layers: their states come and go with the pages of the layers that attend, by a real daemon, without the engine."""

import pytest

torch = pytest.importorskip("torch")

from kvtc.adapters.vllm.attention import UnknownLayout
from kvtc.adapters.vllm.scheduler import SchedulerSide
from kvtc.adapters.vllm.settings import Settings, WishList
from kvtc.adapters.vllm.state import state_cache
from kvtc.adapters.vllm.worker import WorkerSide

import fake_vllm as vllm

PAGE = 64
NAMES = ["model.layers.3.mixer", "model.layers.4.mixer"]
SIZE = vllm.MambaSpec.state_content_size_bytes


class Engine:
    """Both sides of a connector, one group of layers that attend and one of layers with states."""

    def __init__(self, daemon, model, **given):
        options = {"socket": daemon.socket, "deadline": 20.0, "lookup_ms": 20000} | given
        settings, wishes = Settings.parse(options), WishList(options)
        groups = vllm.groups()
        groups.kv_cache_groups += vllm.groups(vllm.MambaSpec, NAMES).kv_cache_groups
        self.worker = WorkerSide(settings, wishes, vllm.config(model), groups, PAGE)
        self.attending, self.states = vllm.caches(), {name: vllm.states() for name in NAMES}
        self.worker.register(self.attending | self.states)
        self.scheduler = SchedulerSide(settings, wishes, [vllm.BLOCK] * 2, PAGE, 1, states=[False, True])
        self.scheduler.meet([self.worker.parts])

    def compute(self, request, blocks, start, end):
        """A step that leaves the state at `end` where vLLM does."""
        for cache in self.attending.values():
            cache[blocks[0][start // vllm.BLOCK : end // vllm.BLOCK]] = torch.randn(1, *cache.shape[1:])
        for state in self.states.values():
            state[blocks[1][-(-end // vllm.BLOCK) - 1]] = torch.randint(-128, 128, state.shape[1:], dtype=torch.int8)
        step = vllm.step(new=[(request, blocks, 0, end)]) if start == 0 else vllm.step(cached=[(request, None, start, end - start, False)])
        self.worker.save(self.scheduler.step(step))

    def load(self, request, blocks):
        tokens, is_async = self.scheduler.matched(request, 0)
        if tokens:
            assert is_async
            self.scheduler.allocated(request, blocks, tokens)
            self.worker.start(self.scheduler.step(vllm.step()))
            for one in self.worker._apart.values():
                one.finish()
            assert self.worker.finished() == {request.request_id} and not self.worker.failed_requests()
        return tokens

    def close(self):
        self.scheduler.close()
        self.worker.close()


@pytest.fixture
def make(daemon, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    made = []

    def engine(**given):
        made.append(Engine(daemon, tmp_path / "model", **given))
        return made[-1]

    yield engine
    for one in made:
        one.close()


def send(engine, ends, blocks):
    """One request computed in steps that end there; returns when the daemon has what is sent."""
    request = vllm.Request("r", range(ends[-1]))
    assert engine.scheduler.matched(request, 0) == (0, False)
    start = 0
    for end in ends:
        engine.compute(request, blocks, start, end)
        start = end
    engine.worker._pusher.close()


BLOCKS = ([3, 9, 4, 8, 5, 6, 7], [11, 12, 13, 14, 15, 16, 17])
OTHER = ([20, 21, 22, 23, 24, 25, 26], [0, 0, 0, 33, 34, 35, 36])


# A lossy mode is the attending layers' alone.
@pytest.mark.parametrize("given", [{}, {"mode": "quant8", "window": 0, "sink": 0}])
def test_a_state_comes_back_with_the_pages_before_it(make, given):
    first, second = make(**given), make(**given)
    send(first, [128, 200], BLOCKS)
    # Two steps ended at 128 and at 200: there is a state for two pages, and for the third, which is full, there is none.
    assert second.load(vllm.Request("s", range(200)), OTHER) == 128
    for name in NAMES:
        assert torch.equal(first.states[name][14][..., :SIZE], second.states[name][33][..., :SIZE])
        assert not second.states[name][34:].any() and not second.states[name][0].any()
    if not given:
        one, other = (engine.worker._groups[0] for engine in (first, second))
        assert torch.equal(one.gather(BLOCKS[0][:4], 2), other.gather(OTHER[0][:4], 2))


def test_the_last_token_is_left_to_compute(make):
    first, second = make(), make()
    send(first, [64, 128, 192], BLOCKS)
    assert second.load(vllm.Request("s", range(192)), OTHER) == 128
    assert second.load(vllm.Request("t", range(193)), ([27, 28, 29, 30, 31, 32, 37], [0, 0, 0, 0, 0, 38, 39])) == 192


def test_pages_without_a_state_are_not_found(make):
    first, second = make(), make()
    send(first, [100, 190], BLOCKS)
    assert second.load(vllm.Request("s", range(200)), OTHER) == 0


def test_states_that_are_not_understood_are_refused():
    caches, specs = {"m": vllm.states()}, {"m": vllm.MambaSpec()}
    cache = state_cache(["m"], caches, specs, PAGE)
    assert cache.token_bytes * PAGE >= SIZE and cache.token_bytes % 4 == 0
    with pytest.raises(UnknownLayout, match="158 bytes of each block"):
        state_cache(["m"], {"m": vllm.states()[..., :100]}, specs, PAGE)
    with pytest.raises(UnknownLayout, match="whole blocks"):
        state_cache(["m"], caches, specs, PAGE + 16)
    for name, value, why in (("mamba_cache_mode", "none", "prefix-caching"), ("num_speculative_blocks", 1, "guessed")):
        specs["m"] = vllm.MambaSpec()
        setattr(specs["m"], name, value)
        with pytest.raises(UnknownLayout, match=why):
            state_cache(["m"], caches, specs, PAGE)
