"""What the llama.cpp adapter needs of a worker, without a model."""

from dataclasses import dataclass, field

import numpy as np

from kvtc.llama_geometry import ModelGeometry
from kvtc.llama_rope import Rope
from kvtc.llama_state import SequenceState, StateForm, blank_state

GEOMETRY = ModelGeometry(layers=2, heads=3, head_dim=8, value_dim=8, rope=Rope.geometric("interleaved", 0, 8, 10000.0, 2))
HEADER = bytes(8)
FORM = StateForm(HEADER, 8, (((24, 24), (24, 24)),))


@dataclass
class FakeWorker:
    """Keeps a state as llama.cpp would."""

    geometry: ModelGeometry = GEOMETRY
    state: SequenceState | None = None
    state_form: StateForm = FORM
    position: int = 0
    prefilled: list[int] = field(default_factory=list)

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
    state = blank_state(range(cells), FORM)
    generator = np.random.default_rng(5)
    for tensor in state.tensors():
        tensor[:] = generator.normal(size=tensor.shape)
    return FakeWorker(state=state, position=cells)
