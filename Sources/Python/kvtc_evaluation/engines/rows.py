"""Rows of K and V that transformers computes of real weights, and what it makes of those that came back: for engines that need a GPU to
compute, but not to keep."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENERATED = 16


@dataclass
class Reference:
    """transformers on the model's weights: what computes rows and generates with them."""

    path: Path
    model: Any
    tokens: list[int]

    def rows(self, tokens: list[int] | None = None) -> tuple[Any, Any]:
        """K and V [2, layers, tokens, heads, width] of the prompt, and the logits after it."""
        import torch

        ids = torch.tensor([tokens or self.tokens])
        with torch.no_grad():
            out = self.model(ids, use_cache=True, logits_to_keep=1)
        layers = out.past_key_values.layers
        stacked = [torch.stack([getattr(layer, name)[0].transpose(0, 1) for layer in layers]) for name in ("keys", "values")]
        return torch.stack(stacked), out.logits[0, -1]

    def first(self, rows: Any) -> tuple[Any, Any]:
        """The cache that the rows of the prompt's beginning are, with the rest computed, and the logits after it."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        # The last token is computed in any case: its logits are no part of the cache.
        rows = rows[:, :, : len(self.tokens) - 1]
        for layer in range(rows.shape[1]):
            keys, values = (rows[tensor, layer].transpose(0, 1)[None] for tensor in range(2))
            cache.update(keys, values, layer)
        with torch.no_grad():
            out = self.model(torch.tensor([self.tokens[rows.shape[2] :]]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.past_key_values, out.logits[0, -1]

    def generate(self, rows: Any) -> list[int]:
        """The tokens that follow the prompt, the likeliest each."""
        import torch

        cache, logits = self.first(rows)
        made = [int(logits.argmax())]
        with torch.no_grad():
            while len(made) < GENERATED:
                out = self.model(torch.tensor([made[-1:]]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                made.append(int(out.logits[0, -1].argmax()))
        return made

    def divergence(self, rows: Any, wanted: Any) -> float:
        """KL, in nats, of the first token's distribution with these rows from that of the logits wanted."""
        import torch

        expected = torch.log_softmax(wanted.double(), -1)
        return float((expected.exp() * (expected - torch.log_softmax(self.first(rows)[1].double(), -1))).sum())


def load(path: Path, tokens: int) -> Reference:
    """The model with so many tokens of English, and some more after them."""
    import torch
    import transformers

    # Of arguments that are named otherwise from some later release on.
    warnings.simplefilter("ignore", FutureWarning)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.eval()
    text = Path("/usr/share/common-licenses/GPL-3").read_text()
    ids = transformers.AutoTokenizer.from_pretrained(path)(text)["input_ids"]
    return Reference(path, model, ids[: tokens + 20])


def perturbed(path: Path, target: Path) -> Path:
    """Another model of the same shape: one tensor is a little different."""
    from safetensors.torch import load_file, save_file

    target.mkdir()
    weights = load_file(path / "model.safetensors")
    weights[min(weights)] = weights[min(weights)] * 1.01
    save_file(weights, target / "model.safetensors")
    (target / "config.json").write_bytes((path / "config.json").read_bytes())
    return target


def same(found: Any, rows: Any, tokens: int) -> bool:
    """Whether those are the rows of so many tokens, bit by bit."""
    import torch

    return found.shape[2] == tokens and torch.equal(found.view(torch.int32), rows[:, :, :tokens].contiguous().view(torch.int32))
