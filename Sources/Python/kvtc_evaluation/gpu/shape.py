"""Shapes of models, and what is measured in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped queries, and the basis of its cache: ``ranks`` by ratio, the first of the profile."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    rope_base: float
    #: Components that a ratio keeps, and of the first of them how many have two digits.
    ranks: dict[int, int]
    second_digits: int
    page: int
    #: Batch and tokens of what is computed and restored.
    sizes: tuple[tuple[int, int], ...]
    unique_pages: int
    rounds: int
    #: Of the daemon's RAM: what the largest size takes coded at all ratios, and one of the sizes raw.
    ram_mib: int

    @property
    def row(self) -> int:
        """Elements of a token's row."""
        return 2 * self.layers * self.kv_heads * self.head_dim


LLAMA_8B = Shape(
    "Llama-3.1-8B", 32, 4096, 32, 8, 128, 14_336, 128_256, 5e5, {16: 23_592, 45: 11_008}, 7864, 64,
    ((1, 2048), (1, 8192), (1, 32_768), (8, 8192)), 16, 3, 6144,
)  # fmt: skip
MINIATURE = Shape("a miniature", 2, 64, 4, 2, 16, 128, 256, 1e4, {16: 40, 45: 24}, 12, 16, ((1, 32),), 2, 0, 64)
