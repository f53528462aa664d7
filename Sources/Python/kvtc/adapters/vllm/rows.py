"""What a row of vLLM's memory tier is to kvtcd: one page for each rank's share of it.

A row holds, rank after rank, one page of each layer of a group as the device has it. What a layer's page is (K and V of each token, or a state)
is known where the model's configuration and the bytes agree; else a row is bytes to kvtcd, which it keeps exactly.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ...identity import Identity
from ...protocol.geometry import Element, Geometry, Grouping, Layout, Order, Role, Tensor
from ..options import Options
from ..sessions import CacheForm
from ..weights import model_directory, model_files, weights_digest

_ELEMENTS = {"float16": Element.F16, "bfloat16": Element.BF16, "float32": Element.F32}
_ORDERS = {"LBHNC": Order.TENSOR_HEAD_TOKEN, "LBNHC": Order.TENSOR_TOKEN_HEAD}
_WIDEST = 8192

log = logging.getLogger("kvtc")


class NoRows(ValueError):
    """Rows that cannot be kept; the message says why."""


@dataclass(frozen=True)
class Share:
    """A rank's part of a group's rows: ``offset`` and ``length`` in bytes within a row, ``page_tokens`` long."""

    form: CacheForm
    page_tokens: int
    offset: int
    length: int


def shares(config: Any, blocks_per_chunk: int, options: Options, is_device_order: bool, *, is_single: bool) -> dict[int, list[Share]]:
    """By group, those of all ranks. ``config``: vLLM's `OffloadingConfig`. ``is_device_order``: K and V lie as its layout's name says,
    which they do not on processors. ``is_single``: ranks hold the same, of which a row has one.

    Raises ValueError for weights that cannot be read, and NoRows.
    """
    path = model_directory(options.model or config.model.name)
    weights = weights_digest(model_files(path))
    length = config.worker_kv_bytes_per_block * blocks_per_chunk
    ranks = 1 if is_single else config.parallel.world_size
    known = _heads(path, config) if is_device_order and blocks_per_chunk == 1 and len(config.groups) == 1 else None
    result: dict[int, list[Share]] = {}
    for group in config.groups:
        tokens = group.tokens_per_block * blocks_per_chunk
        if not 16 <= tokens <= 1024 or length % tokens:
            raise NoRows(f"chunks of {tokens} tokens and {length} bytes: pages have 16 to 1024 tokens, and whole bytes of each")
        geometry, layout = known or _bytes(len(group.layer_names), length // tokens, config.model.dtype)
        if known is None and not options.mode.name.startswith("LOSSLESS"):
            raise NoRows("what rows hold is not known here (see the documentation's page on vLLM), so that they can be kept losslessly only")
        form_of = [
            CacheForm(_identity(config, weights, group, rank, ranks, options, path), geometry, length // tokens, layout, is_exact=False)
            for rank in range(ranks)
        ]
        result[group.group_id] = [Share(form, tokens, rank * length, length) for rank, form in enumerate(form_of)]
    return result


def _identity(config: Any, weights: bytes, group: Any, rank: int, ranks: int, options: Options, path: Any) -> Identity:
    parallel = config.parallel
    return Identity(
        weights,
        kv_type=config.model.dtype,
        part=f"rank {rank}/{ranks} tp{parallel.tp_size} pp{parallel.pp_size} group{group.group_id}",
        salt=options.salt,
        extra={
            "engine": "vllm tier",
            "layout": str(config.kv_cache_layout),
            "canonical": bool(config.canonical_layout),
            "blocks": f"{group.tokens_per_block}x{config.cache.blocks_per_chunk}",
            "layers": "\n".join(group.layer_names),
            "configuration": (path / "config.json").read_bytes() if (path / "config.json").is_file() else b"",
        },
    )


def _heads(path: Any, config: Any) -> tuple[Geometry, Layout] | None:
    """K and V by heads, where the model's own configuration explains every byte; None where it does not."""
    element, order = _ELEMENTS.get(config.model.dtype), _ORDERS.get(str(config.kv_cache_layout))
    try:
        model = json.loads((path / "config.json").read_text())
        heads = model["num_key_value_heads"] // config.parallel.tp_size
        width = model.get("head_dim") or model["hidden_size"] // model["num_attention_heads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    (group,) = config.groups
    if element is None or order is None or heads < 1 or config.parallel.pp_size > 1:
        return None
    layers = len(group.layer_names)
    if config.worker_kv_bytes_per_block != layers * 2 * heads * width * element.size * group.tokens_per_block:
        return None
    return Geometry.from_heads(layers, heads, width, rope_style="none"), Layout(element, order, Grouping.FUSED_HEADS)


def _bytes(layers: int, token_bytes: int, dtype: str) -> tuple[Geometry, Layout]:
    """As if each layer had one head of everything that it keeps of a token."""
    element = _ELEMENTS.get(dtype, Element.E4M3)
    values, rest = divmod(token_bytes, element.size)
    if rest:
        element, values = Element.E4M3, token_bytes
    layers = layers if values % layers == 0 else 1
    each = values // layers
    heads = next(count for count in range(1, each + 1) if each % count == 0 and each // count <= _WIDEST)
    tensors = [Tensor(layer, Role.KEY, heads=heads, head_dim=each // heads) for layer in range(layers)]
    return Geometry(tensors), Layout(element, Order.TENSOR_TOKEN_HEAD, Grouping.LAYER_PAIRS)


def runs(ends: Sequence[int], tokens: int) -> list[range]:
    """Which of the chunks that end at these positions, in ascending order, follow one another."""
    cuts = [0, *(index for index in range(1, len(ends)) if ends[index] - ends[index - 1] != tokens), len(ends)]
    return [range(begin, end) for begin, end in pairwise(cuts) if end > begin]
