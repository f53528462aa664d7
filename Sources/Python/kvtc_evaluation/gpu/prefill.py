"""A decoder of a shape with random weights, as plain torch computes it: what a restore is measured against."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .shape import Shape


class Model:
    """bfloat16 weights; grouped queries, rotary positions, gated feed-forward layers."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self._shape = shape
        generator = torch.Generator(device).manual_seed(3)

        def weights(rows: int, columns: int) -> Any:
            return torch.empty((rows, columns), dtype=torch.bfloat16, device=device).normal_(0, 0.02, generator=generator)

        own, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self._layers = [
            (
                weights(own + 2 * kv, shape.hidden), weights(shape.hidden, own), weights(2 * shape.intermediate, shape.hidden),
                weights(shape.hidden, shape.intermediate),
            )
            for _ in range(shape.layers)
        ]  # fmt: skip
        self._embedding, self._head = weights(shape.vocabulary, shape.hidden), weights(shape.vocabulary, shape.hidden)
        self._norm = torch.ones(shape.hidden, dtype=torch.bfloat16, device=device)
        exponent = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
        self._frequencies = shape.rope_base**-exponent

    @torch.inference_mode()
    def prefill(self, ids: Any) -> Any:
        """Logits after the last token, of [batch, tokens]; keys and values of every layer are kept until then, as a cache would."""
        shape, kept = self._shape, []
        batch, tokens = ids.shape
        angles = torch.arange(tokens, device=ids.device).float()[:, None] * self._frequencies[None]
        turns = torch.cat([angles, angles], -1)
        cosine, sine = turns.cos().bfloat16(), turns.sin().bfloat16()

        def turned(heads: Any) -> Any:
            half = shape.head_dim // 2
            return heads * cosine + torch.cat([-heads[..., half:], heads[..., :half]], -1) * sine

        x = F.embedding(ids, self._embedding)
        widths = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
        for qkv, out, gate_up, down in self._layers:
            parts = F.linear(F.rms_norm(x, (shape.hidden,), self._norm), qkv).split(widths, -1)
            query, key, value = (part.view(batch, tokens, -1, shape.head_dim).transpose(1, 2) for part in parts)
            query, key = turned(query), turned(key)
            kept.append((key, value))
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            x = x + F.linear(mixed.transpose(1, 2).reshape(batch, tokens, -1), out)
            gate, up = F.linear(F.rms_norm(x, (shape.hidden,), self._norm), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return F.linear(F.rms_norm(x[:, -1], (shape.hidden,), self._norm), self._head)
