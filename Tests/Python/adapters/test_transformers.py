"""`generate` of transformers with a real daemon beside it: the same tokens, from pages where there are some. Small random models."""

from __future__ import annotations

import logging
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch_models import VOCABULARY, WINDOW, small

import kvtc.transformers
from kvtc.adapters.transformers import TransformersWorker, keep
from kvtc.protocol.geometry import Element

PAGE = 16
PROMPT = torch.from_numpy(np.random.default_rng(5).integers(2, VOCABULARY, (1, 70)))
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "head_dim": 4,
    "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "moe_intermediate_size": 16, "n_shared_experts": 1,
}  # fmt: skip
WHOLE = 64
"""Tokens of the prompt's full pages."""


@pytest.fixture
def kept(daemon):
    """Makes kept models; they are let go at the end."""
    made = []

    def make(model, **options):
        made.append(keep(model, page_tokens=PAGE, **({"socket": daemon.socket, "always_restore": True} | options)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def run(model, prompt=PROMPT, **options):
    return model.generate(prompt, **({"max_new_tokens": 12, "do_sample": False} | options))[0].tolist()


def run_and_wait(one, **options):
    """As `run`; returns once the pages were handed over."""
    tokens = run(one.model, **options)
    one.flush()
    return tokens


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"dtype": "bfloat16"}),
        ("llama", {"dtype": "float16"}),
        ("llama", {"num_key_value_heads": 4}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {}),
        ("gemma2", {}),
        ("gemma3_text", {}),
        ("gpt_neox", {}),
        ("smollm3", {"no_rope_layers": [1, 0]}),
        ("olmo2", {}),
        ("deepseek_v3", LATENT),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    ],
)
def test_another_model_of_the_same_content_goes_on_with_the_same_tokens(kind, options, kept) -> None:
    expected = run(small(kind, **options))
    first = kept(small(kind, **options))
    assert not first.refusal and run_and_wait(first) == expected
    assert (first.counts.restored_tokens, first.counts.stored_pages) == (0, (70 + 11) // PAGE)
    first.close()
    second = kept(small(kind, **options))
    assert run_and_wait(second) == expected
    # The last page was full only with the tokens that were generated.
    assert second.counts.restored_tokens == WHOLE and second.counts.stored_pages == 0


def test_a_conversation_goes_on_behind_what_was_generated(kept) -> None:
    one = kept(small("llama"))
    told = run_and_wait(one)
    longer = torch.tensor([told + PROMPT[0, :9].tolist()])
    plain = run(small("llama"), longer)
    assert run_and_wait(one, prompt=longer) == plain
    assert one.counts.restored_tokens == len(told) - len(told) % PAGE
    branch = torch.tensor([told[:40] + [3, 4, 5, 6, 7, 8, 9, 10, 11]])
    before = one.counts.restored_tokens
    assert run(one.model, branch) == run(small("llama"), branch)
    assert one.counts.restored_tokens - before == 32, "a page in which another sequence begins is none of this one"


def test_a_window_is_what_the_mask_says_when_its_rows_come_back(kept) -> None:
    """Rows that a layer with a window would have let go are there, and not seen."""
    assert len(PROMPT[0]) > 4 * WINDOW
    one = kept(small("gemma3_text"))
    run_and_wait(one)
    changed = PROMPT.clone()
    changed[0, -1] = 2
    assert run(one.model, changed) == run(small("gemma3_text"), changed) and one.counts.restored_tokens == WHOLE


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_without_the_daemon_the_same_tokens_are_computed(moment, kept, make_daemon) -> None:
    daemon = make_daemon()
    expected = run(small("llama"))
    one = kept(small("llama"), socket=daemon.socket)
    if moment != "before":
        assert run_and_wait(one) == expected
    if moment == "during":
        worker, blank = one.worker, one.worker.blank_state

        def ending(cells):
            daemon.stop(signal.SIGKILL)
            return blank(cells)

        worker.blank_state = ending
    else:
        daemon.stop(signal.SIGKILL)
    assert run_and_wait(one) == expected
    assert one.counts.restored_tokens == 0
    daemon.start()
    if moment == "during":
        worker.blank_state = blank
    # The breaker asks again a moment later.
    one._late._breaker._until = 0
    if one._late._client:
        one._late._client.breaker._until = 0
    assert run_and_wait(one) == expected
    other = kept(small("llama"), socket=daemon.socket)
    assert run_and_wait(other) == expected and other.counts.restored_tokens == WHOLE


def test_a_daemon_that_stands_still_costs_no_more_than_the_deadline(kept, daemon) -> None:
    one = kept(small("llama"), deadline=0.2)
    expected = run_and_wait(one)
    with daemon.stopped():
        assert run(one.model) == expected
    assert one.counts.restored_tokens == 0


def test_models_weights_salts_and_types_meet_none_of_each_others_pages(kept) -> None:
    run_and_wait(kept(small("llama", 1)))
    changed = small("llama", 1)
    with torch.no_grad():
        changed.model.layers[0].self_attn.k_proj.weight[0, 0] += 1e-3
    turned = small("llama", 1)
    turned.config.rope_parameters["rope_theta"] = 5000.0
    others = [kept(changed), kept(turned), kept(small("llama", 1), salt="a"), kept(small("llama", 1, "bfloat16")), kept(small("llama", 2))]
    for one in others:
        run_and_wait(one)
        assert one.counts.restored_tokens == 0
    assert len({one.worker.identity.digest for one in others}) == len(others)
    for one in others:
        run_and_wait(one)
        assert one.counts.restored_tokens == WHOLE


def test_adapters_are_their_content_and_scale(kept) -> None:
    peft = pytest.importorskip("peft")

    def adapted(seed, alpha=8):
        model = small("llama", 1)
        torch.manual_seed(seed)
        options = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False)
        return peft.get_peft_model(model, options).eval()

    run_and_wait(kept(small("llama", 1)))
    for build in (lambda: adapted(3), lambda: adapted(4), lambda: adapted(3, alpha=16)):
        expected = run(build())
        first = kept(build())
        assert run_and_wait(first) == expected and first.counts.restored_tokens == 0
        second = kept(build())
        assert run_and_wait(second) == expected and second.counts.restored_tokens == WHOLE
    # Switched off and on again, and merged, in one model.
    one = kept(adapted(3))
    assert run_and_wait(one) == run(adapted(3)) and one.counts.restored_tokens == WHOLE
    with one.model.disable_adapter():
        off = one.worker.identity.digest
        assert run(one.model) == run(small("llama", 1))
    one.model.merge_adapter()
    merged = one.worker.identity.digest
    one.model.unmerge_adapter()
    assert len({off, merged, one.worker.identity.digest}) == 3


def test_calls_that_are_not_one_sequence_of_tokens_are_left_alone(kept) -> None:
    one, plain = kept(small("llama")), small("llama")
    run_and_wait(one)
    two = torch.cat([PROMPT, PROMPT.flip(1)])
    masked = torch.ones_like(PROMPT)
    masked[0, :5] = 0
    for options in (
        {"inputs": two},
        {"inputs": PROMPT, "num_beams": 2},
        {"inputs": PROMPT, "attention_mask": masked},
        {"inputs": PROMPT, "use_cache": False},
        {"inputs": PROMPT, "cache_implementation": "static"},
        {"inputs": PROMPT, "prompt_lookup_num_tokens": 3},
        {"inputs": PROMPT, "position_ids": torch.arange(70)[None]},
    ):
        common = {"max_new_tokens": 5, "do_sample": False} | options
        assert one.model.generate(**common).tolist() == plain.generate(**common).tolist(), options
    assert one.counts.alone == 7 and one.counts.calls == 1
    with pytest.raises(ValueError, match="no_such_option"):
        one.model.generate(PROMPT, no_such_option=1)


def test_samples_are_those_of_the_seed(kept) -> None:
    one, plain = kept(small("llama")), small("llama")
    run_and_wait(one)
    drawn = []
    for model in (one.model, plain):
        torch.manual_seed(11)
        drawn.append(run(model, do_sample=True, temperature=1.5))
    assert drawn[0] == drawn[1] and one.counts.restored_tokens == WHOLE


def test_what_is_no_cache_of_tokens_is_refused_with_a_sentence(kept, caplog) -> None:
    linear = {"layer_types": ["linear_attention", "full_attention"], "num_experts": 2, "num_experts_per_tok": 1}
    for kind, options, reason in (
        ("mamba", {}, "Mamba"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}, "dynamic"),
        ("qwen3_next", linear, "LinearAttention"),
    ):
        with caplog.at_level(logging.WARNING, "kvtc"):
            one = kept(small(kind, **options))
        assert reason in one.refusal and one.refusal in caplog.text
        assert run(one.model) == run(small(kind, **options))
        assert one.counts.calls == 0


def test_settings_are_checked_and_the_model_is_given_back(kept, daemon, caplog) -> None:
    model = small("llama")
    with pytest.raises(ValueError, match="negative"):
        keep(model, socket=daemon.socket, ratio=-1)
    with caplog.at_level(logging.WARNING, "kvtc"):
        one = kept(model, no_such_key=1)
    assert "no_such_key" in caplog.text
    assert "generate" in model.__dict__
    one.close()
    assert "generate" not in model.__dict__ and run(model) == run(small("llama"))


def test_what_rope_does_is_seen_on_the_keys() -> None:
    for kind, style, dims in (("llama", "half_split", 8), ("gpt_neox", "half_split", 2), ("cohere", "interleaved", 8), ("gpt2", "none", 0)):
        options = {"n_embd": 32, "n_layer": 2, "n_head": 4} if kind == "gpt2" else {}
        rope = TransformersWorker(small(kind, **options)).geometry.rope
        assert (rope.style, rope.dims) == (style, dims), kind
    local = TransformersWorker(small("gemma3_text")).geometry.rope
    assert len(set(local.frequencies)) == 2, "layers with a window turn faster"
    idle = TransformersWorker(small("smollm3", no_rope_layers=[1, 0])).geometry.rope
    assert any(idle.frequencies[0]) and not any(idle.frequencies[1])


def test_a_cache_kept_in_sixteen_bits_is_another_one() -> None:
    exact, rounded = TransformersWorker(small("llama")), TransformersWorker(small("llama"), element=Element.F16)
    assert exact.identity != rounded.identity
    for worker in (exact, rounded):
        worker.prefill(PROMPT[0])
    assert rounded.get_state().token_bytes() * 2 == exact.get_state().token_bytes() == exact.geometry.token_bytes
    np.testing.assert_allclose(rounded.get_state().keys[1].astype(np.float32), exact.get_state().keys[1], rtol=1e-3, atol=1e-4)


def test_the_short_name_is_the_same() -> None:
    assert kvtc.transformers.keep is keep
