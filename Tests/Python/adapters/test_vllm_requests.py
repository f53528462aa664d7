"""Which pages a request of vLLM has, by name, and when they are sent; what a user may set; rows of its memory tier."""

import json
import logging
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from kvtc.adapters.options import Options
from kvtc.adapters.vllm.keys import Adapters, NoName, RequestKeys
from kvtc.adapters.vllm.prefills import Prefills
from kvtc.adapters.vllm.rows import NoRows, runs, shares
from kvtc.adapters.vllm.scheduler import SchedulerSide
from kvtc.adapters.vllm.settings import Settings, WishList
from kvtc.keys import page_keys
from kvtc.protocol.geometry import Element, Grouping, Order
from kvtc.protocol.policy import Mode

import fake_vllm as vllm

PAGE = 64


def keys(request, upto=None):
    return RequestKeys(request, PAGE, Adapters()).upto(request.num_tokens if upto is None else upto)


def test_keys_are_those_of_the_tokens_however_they_came():
    tokens = list(range(300))
    request = vllm.Request("r", tokens[:100])
    chain = RequestKeys(request, PAGE, Adapters())
    assert chain.upto(100) == page_keys(tokens[:100], PAGE)
    request.all_token_ids += tokens[100:]
    assert chain.upto(129) == page_keys(tokens[:129], PAGE)
    assert chain.upto(300) == page_keys(tokens, PAGE)
    assert chain.upto(70) == page_keys(tokens[:64], PAGE)


def folder(path, weights, scale=16):
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(weights)
    (path / "adapter_config.json").write_text(json.dumps({"lora_alpha": scale}))
    return path


def test_adapters_are_their_content_and_scale_not_their_names(tmp_path):
    made = {
        "one": folder(tmp_path / "one", b"a"),
        "copy": folder(tmp_path / "copy", b"a"),
        "weights": folder(tmp_path / "weights", b"b"),
        "scale": folder(tmp_path / "scale", b"a", scale=8),
    }
    names = {name: keys(vllm.Request("r", range(64), adapter=vllm.adapter(path, name))) for name, path in made.items()}
    assert names["one"] == names["copy"]
    assert len({tuple(of_one) for of_one in [*names.values(), keys(vllm.Request("r", range(64)))]}) == 4


def test_an_adapter_is_what_it_was_when_it_was_loaded(tmp_path):
    adapters, path = Adapters(), folder(tmp_path / "one", b"a")
    before = adapters.digest(vllm.adapter(path))
    (path / "adapter_model.safetensors").write_bytes(b"changed")
    assert adapters.digest(vllm.adapter(path)) == before
    anew = vllm.adapter(path)
    anew.load_inplace = True
    assert adapters.digest(anew) != before
    with pytest.raises(NoName, match="holds no LoRA adapter"):
        (tmp_path / "empty").mkdir()
        adapters.digest(vllm.adapter(tmp_path / "empty"))


def test_salts_and_images_are_in_the_keys():
    def image(name, offset=70):
        return keys(vllm.Request("r", range(192), features=[vllm.image(offset, 20, name)]))

    plain = keys(vllm.Request("r", range(192)))
    salted = [keys(vllm.Request("r", range(192), salt=salt)) for salt in ("a", "b")]
    assert len({tuple(of_one) for of_one in [plain, *salted]}) == 3
    one, other, moved = image("x"), image("y"), image("x", 71)
    assert one[0] == other[0] == moved[0] == plain[0]
    assert len({one[1], other[1], moved[1], plain[1]}) == 4 and len({one[2], other[2], plain[2]}) == 3
    with pytest.raises(NoName, match="embeddings"):
        keys(vllm.Request("r", range(64), embeddings=object()))


@pytest.fixture
def scheduler():
    made = []

    def make(roles=(True, True), **given):
        side = SchedulerSide(Settings.parse(given), WishList(given), [vllm.BLOCK], PAGE, 1, loads=roles[0], saves=roles[1])
        # Pages are planned for workers that are known; nothing is asked of a daemon here.
        side._pages = SimpleNamespace(leading=lambda wishes, keys: 0, close=lambda: None)
        made.append(side)
        return side

    yield make
    for side in made:
        side.close()


def saves(plan):
    return [(save.request, save.first, len(save.keys), save.blocks[0]) for save in plan.saves]


def test_pages_are_sent_as_chunks_fill_them(scheduler):
    side, request = scheduler(), vllm.Request("r", range(200))
    assert side.matched(request, 0) == (0, False)
    assert saves(side.step(vllm.step(new=[(request, ([1, 2, 3],), 0, 96)]))) == [("r", 0, 1, (1, 2))]
    assert saves(side.step(vllm.step(cached=[(request, ([4, 5, 6, 7],), 96, 104, False)]))) == [("r", 1, 2, (3, 4, 5, 6))]
    # Two tokens are drafted beyond the one that is known.
    request.all_token_ids += range(200, 256)
    assert saves(side.step(vllm.step(cached=[(request, ([8],), 253, 3, False)]))) == [("r", 3, 1, (7, 8))]


def test_drafted_tokens_are_not_sent(scheduler):
    side, request = scheduler(), vllm.Request("r", range(127))
    side.matched(request, 0)
    assert saves(side.step(vllm.step(new=[(request, ([1, 2, 3, 4],), 0, 130)]))) == [("r", 0, 1, (1, 2))]


def test_a_request_that_was_put_off_is_sent_from_its_new_blocks(scheduler):
    side, request = scheduler(), vllm.Request("r", range(128))
    side.matched(request, 0)
    side.step(vllm.step(new=[(request, ([1, 2, 3, 4],), 0, 128)]))
    request.all_token_ids += range(128, 200)
    plan = side.step(vllm.step(cached=[(request, ([9, 8, 7, 6, 5, 4, 3],), 64, 136, True)]))
    assert saves(plan) == [("r", 1, 2, (7, 6, 5, 4))]


def there(leading, seconds=None):
    """Pages of which so many are there, each of which takes so long to bring."""
    return SimpleNamespace(
        leading=lambda wishes, keys: leading(keys), seconds=lambda wishes, keys: [seconds] * len(keys), close=lambda: None
    )


def test_what_is_computed_sooner_is_not_loaded(scheduler, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kvtc.adapters.vllm.scheduler.Prefills", lambda even: Prefills(even, lambda: now[0]))
    side, first = scheduler(), vllm.Request("first", range(257))
    side._pages = there(len, seconds=0.064)
    # Nothing is known of prefills: what is there is loaded.
    assert side.matched(vllm.Request("r", range(257)), 0)[0] == 256
    # A hundred tokens take a tenth of a second: then the next step goes on with the request. A gap between requests says nothing.
    side.step(vllm.step(new=[(first, ([1, 2, 3, 4],), 0, 100)]))
    now[0] += 0.1
    side.step(vllm.step(cached=[(first, ([5, 6],), 100, 100, False)]))
    now[0] += 100
    side.step(vllm.step(new=[(vllm.Request("other", range(90)), ([7, 8, 9],), 0, 90)]))
    assert side.matched(vllm.Request("s", range(257)), 0)[0] == 256
    side._pages = there(len, seconds=0.1)
    assert side.matched(vllm.Request("t", range(257)), 0) == (0, False)
    # What vLLM has itself goes before.
    side._pages = there(len, seconds=0.03)
    assert side.matched(vllm.Request("u", range(257)), 128)[0] == 128
    assert side.matched(vllm.Request("v", range(257)), 192)[0] == 0


def test_a_last_page_is_not_worth_a_load(scheduler):
    side = scheduler()
    side._pages = there(len)
    matched = [side.matched(vllm.Request(f"r{computed}", range(256)), computed)[0] for computed in (0, 96, 160, 192, 224)]
    assert matched == [256, 160, 96, 0, 0]


def test_a_server_that_only_sends_or_only_finds(scheduler):
    for finds in (True, False):
        side, request = scheduler(roles=(finds, not finds)), vllm.Request("r", range(200))
        side._pages = there(lambda keys: 1)
        assert side.matched(request, 0)[0] == (64 if finds else 0)
        assert bool(saves(side.step(vllm.step(new=[(request, ([1, 2, 3, 4, 5, 6, 7],), 0, 200)])))) != finds


def test_only_prompts_are_sent_where_that_is_asked_for(scheduler):
    side, request = scheduler(prompt_only=True), vllm.Request("r", range(100))
    side.matched(request, 0)
    side.step(vllm.step(new=[(request, ([1, 2, 3, 4],), 0, 100)]))
    request.all_token_ids += range(100, 130)
    assert saves(side.step(vllm.step(cached=[(request, None, 100, 30, False)]))) == []


def test_settings_that_cannot_be_are_refused_and_unknown_ones_named(caplog):
    for wrong in ({"page_tokens": "64"}, {"layerwise": 1}, {"lookup_ms": -1}, {"mode": "best"}, {"ratio": 8, "distortion": 0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings.parse(wrong)
    with caplog.at_level(logging.WARNING, "kvtc"):
        Settings.parse({"sokcet": "/run/x"})
    assert "'sokcet'" in caplog.text
    assert [Settings.parse({}).size_of_pages(block) for block in (16, 32, 64, 128, 48)] == [64, 64, 64, 128, 96]
    with pytest.raises(ValueError, match="whole blocks of 48"):
        Settings.parse({"page_tokens": 64}).size_of_pages(48)


def test_a_request_asks_for_its_own_policy(caplog):
    wishes = WishList({"mode": "transform", "distortion": 0.02, "sink": 8})
    assert wishes.of(None) == wishes.of({"remote_host": "x"}) == ()
    asked = wishes.of({"kvtc": {"ratio": 8, "window": 256, "ttl_seconds": 60}})
    policy = wishes.options(asked).policy
    assert (policy.quality_kind, policy.quality, policy.window, policy.sink, policy.ttl_seconds) == (0, 8, 256, 8, 60)
    assert wishes.options(wishes.of({"kvtc": {"mode": "lossless"}})).mode == Mode.LOSSLESS
    for wrong in ({"socket": "/x"}, {"mode": "best"}, {"window": [1]}, "all"):
        caplog.clear()
        assert wishes.of({"kvtc": wrong}) == () and "kv_transfer_params" in caplog.text
    for ttl in range(40):
        wishes.of({"kvtc": {"ttl_seconds": ttl + 100}})
    assert wishes.of({"kvtc": {"ttl_seconds": 999}}) == (), "every wish is a connection"


def tier(path, **given):
    model = {"num_key_value_heads": 2, "head_dim": 8, "hidden_size": 64, "num_attention_heads": 8}
    (path / "config.json").write_text(json.dumps(model))
    (path / "model.safetensors").write_bytes(b"weights")
    values = {
        "groups": (SimpleNamespace(tokens_per_block=32, layer_names=("a", "b", "c"), group_id=0),),
        "worker_kv_bytes_per_block": 3 * 2 * 2 * 8 * 2 * 32, "model": SimpleNamespace(name=str(path), dtype="bfloat16"),
        "cache": SimpleNamespace(tokens_per_hash=32, blocks_per_chunk=1), "kv_cache_layout": "LBNHC", "canonical_layout": False,
        "parallel": SimpleNamespace(world_size=1, tp_size=1, pp_size=1),
    }
    return SimpleNamespace(**values | given)


def test_rows_are_heads_where_the_model_explains_every_byte(tmp_path):
    options = Options.parse({"mode": "quant8"})
    (share,) = shares(tier(tmp_path), 1, options, True, is_single=False)[0]
    layout = share.form.layout
    assert (layout.element, layout.order, layout.grouping) == (Element.BF16, Order.TENSOR_TOKEN_HEAD, Grouping.FUSED_HEADS)
    assert share.form.token_bytes == share.form.geometry.elements() * 2 == share.length // share.page_tokens
    for other in ({"worker_kv_bytes_per_block": 12320 * 2}, {"kv_cache_layout": "BLHNC"}):
        with pytest.raises(NoRows, match="losslessly only"):
            shares(tier(tmp_path, **other), 1, options, True, is_single=False)
    with pytest.raises(NoRows, match="losslessly only"):
        shares(tier(tmp_path), 1, options, False, is_single=False)


def test_rows_of_unknown_bytes_are_kept_as_bytes_by_rank(tmp_path):
    config = tier(tmp_path, parallel=SimpleNamespace(world_size=2, tp_size=2, pp_size=1), worker_kv_bytes_per_block=32 * 6 * 20000)
    one, other = shares(config, 1, Options.parse({}), False, is_single=False)[0]
    assert (one.offset, other.offset) == (0, one.length) and one.form.identity != other.form.identity
    assert one.form.geometry.elements() * one.form.layout.element.size == one.form.token_bytes == 120000
    assert all(tensor.head_dim <= 8192 for tensor in one.form.geometry.tensors)
    assert len(shares(config, 1, Options.parse({}), False, is_single=True)[0]) == 1


def test_chunks_that_follow_one_another_are_one_run():
    assert [(run.start, run.stop) for run in runs([64, 128, 256, 320, 330], 64)] == [(0, 2), (2, 4), (4, 5)]
    assert runs([], 64) == []
