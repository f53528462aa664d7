"""What vLLM 0.32 hands to the adapter, as far as the adapter looks at it: configuration, caches, requests, scheduler output."""

from types import SimpleNamespace

import torch

BLOCK = 32
HEADS, WIDTH = 2, 8
LAYERS = [f"model.layers.{index}.self_attn.attn" for index in range(3)]


class FullAttentionSpec:
    num_kv_heads, head_size, head_size_v, block_size = HEADS, WIDTH, WIDTH, BLOCK
    kv_quant_mode = SimpleNamespace(name="NONE")


class MambaSpec:
    """States of two parts, as a convolution and what follows it have them: 158 bytes."""

    block_size, shapes, dtypes = BLOCK, ((3, 5), (2, 4, 4)), (torch.bfloat16, torch.float32)
    state_content_size_bytes = 3 * 5 * 2 + 2 * 4 * 4 * 4
    mamba_cache_mode, num_speculative_blocks = "align", 0


class SideBySide:
    """Writes K and V of a token's head one behind the other, as kernels for GPUs do."""

    def do_kv_cache_update(self, layer, key, value, cache, slots):
        for row, slot in enumerate(slots.tolist()):
            at = cache[slot // cache.shape[2], :, slot % cache.shape[2]]
            at.copy_(torch.cat([key[row], value[row]], -1).to(cache.dtype))


class KeysTransposed:
    """As vLLM's backend for processors."""

    def do_kv_cache_update(self, layer, key, value, cache, slots):
        size = cache.shape[2]
        halves = cache.view(cache.shape[0], cache.shape[1], 2, -1)
        for row, slot in enumerate(slots.tolist()):
            block, at = divmod(slot, size)
            halves[block, :, 0].view(-1, key.shape[-1], size)[:, :, at] = key[row].to(cache.dtype)
            halves[block, :, 1].view(-1, size, value.shape[-1])[:, at] = value[row].to(cache.dtype)


class Scrambled:
    """An order that nobody has thought of: K and V of all heads mixed, and the tokens of a block backwards."""

    def do_kv_cache_update(self, layer, key, value, cache, slots):
        size = cache.shape[2]
        flat = cache.view(cache.shape[0], -1, size)
        for row, slot in enumerate(slots.tolist()):
            block, at = divmod(slot, size)
            flat[block, :, size - 1 - at] = torch.stack([key[row], value[row].flip(-1)], -1).flatten().to(cache.dtype)


class Smoothed:
    """Something else than the rows that were given."""

    def do_kv_cache_update(self, layer, key, value, cache, slots):
        SideBySide().do_kv_cache_update(layer, key + key.roll(1, -1), value, cache, slots)


def caches(blocks=64, dtype=torch.float32, block=BLOCK, layers=LAYERS):
    return {name: torch.zeros(blocks, HEADS, block, 2 * WIDTH, dtype=dtype) for name in layers}


def states(blocks=64):
    """The bytes of one layer's states, with some behind them that mean nothing."""
    return torch.zeros(blocks, 1, 1, MambaSpec.state_content_size_bytes + 34, dtype=torch.int8)


def groups(spec=FullAttentionSpec, layers=LAYERS):
    return SimpleNamespace(kv_cache_groups=[SimpleNamespace(layer_names=list(layers), kv_cache_spec=spec())])


def config(model, backend=SideBySide, rank=0, ranks=1, **cache):
    """`model`: a directory with weights in it."""
    return SimpleNamespace(
        load_config=SimpleNamespace(load_format="auto"),
        model_config=SimpleNamespace(
            model=str(model), model_weights="", revision=None, dtype=torch.float32, quantization=None, max_model_len=4096,
            hf_config=SimpleNamespace(to_dict=lambda: {"rope_theta": 10000.0}),
        ),
        cache_config=SimpleNamespace(**({"cache_dtype": "auto", "calculate_kv_scales": False} | cache)),
        parallel_config=SimpleNamespace(
            rank=rank, tensor_parallel_size=ranks, pipeline_parallel_size=1, decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
        ),
        compilation_config=SimpleNamespace(static_forward_context={name: SimpleNamespace(impl=backend()) for name in LAYERS}),
    )


class Request:
    def __init__(self, name, tokens, *, salt=None, adapter=None, parameters=None, features=(), embeddings=None):
        self.request_id, self.all_token_ids, self.num_prompt_tokens = name, list(tokens), len(tokens)
        self.cache_salt, self.lora_request, self.kv_transfer_params = salt, adapter, parameters
        self.mm_features, self.prompt_embeds = list(features), embeddings

    @property
    def num_tokens(self):
        return len(self.all_token_ids)


def adapter(folder, name="one", number=1):
    return SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=str(folder), load_inplace=False)


def image(offset, length, name):
    return SimpleNamespace(mm_position=SimpleNamespace(offset=offset, length=length), identifier=name)


def step(new=(), cached=()):
    """`new`: (request, blocks by group, computed, scheduled); `cached`: (request, new blocks or None, computed, scheduled, resumed)."""
    return SimpleNamespace(
        scheduled_new_reqs=[
            SimpleNamespace(req_id=request.request_id, block_ids=blocks, num_computed_tokens=computed) for request, blocks, computed, _ in new
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[request.request_id for request, *_ in cached],
            resumed_req_ids={request.request_id for request, _, _, _, resumed in cached if resumed},
            new_block_ids=[blocks for _, blocks, _, _, _ in cached],
            num_computed_tokens=[computed for _, _, computed, _, _ in cached],
        ),
        num_scheduled_tokens={request.request_id: scheduled for request, _, _, scheduled in new}
        | {request.request_id: scheduled for request, _, _, scheduled, _ in cached},
    )
