"""What the llama.cpp adapter needs of a worker, without a model."""

from dataclasses import dataclass, field

import numpy as np

from kvtc.llama_model import ModelGeometry
from kvtc.llama_state import SequenceState, blank_state

GEOMETRY = ModelGeometry(layers=2, heads=3, head_dim=8, rope_style="interleaved", rope_base=10000.0, rope_dims=8)
HEADER = bytes(8)


@dataclass
class FakeWorker:
    """Keeps a state as llama.cpp would."""

    geometry: ModelGeometry = GEOMETRY
    state: SequenceState | None = None
    state_form: tuple[bytes, int] = (HEADER, 8)
    position: int = 0
    prefilled: list[int] = field(default_factory=list)

    @property
    def row_elements(self) -> list[int]:
        return [24] * 4

    def get_state(self) -> SequenceState:
        assert self.state
        return self.state

    def set_state(self, state: SequenceState) -> None:
        self.state, self.position = state, state.cells

    def clear(self) -> None:
        self.state, self.position = None, 0

    def truncate(self, position: int) -> None:
        self.position = position

    def prefill(self, tokens: list[int]) -> str:
        self.prefilled = list(tokens)
        return "logits"


def filled_worker(cells: int) -> FakeWorker:
    """A worker that has read so many tokens."""
    state = blank_state(range(cells), [24] * 4, header=HEADER, gap=8)
    generator = np.random.default_rng(5)
    for tensor in state.tensors():
        tensor[:] = generator.normal(size=tensor.shape)
    return FakeWorker(state=state, position=cells)
