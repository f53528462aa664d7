"""What the llama.cpp adapter needs of a worker, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kvtc import Identity
from kvtc.adapters.engine import Origin
from kvtc.adapters.geometry import ModelGeometry
from kvtc.adapters.llama_cpp.state import SequenceState, StateForm, blank_state
from kvtc.adapters.rope import Rope

GEOMETRY = ModelGeometry(layers=2, heads=3, head_dim=8, value_dim=8, rope=Rope.geometric("interleaved", 0, 8, 10000.0, 2))
HEADER = bytes(8)
FORM = StateForm(HEADER, 8, (((24, 24), (24, 24)),))
IDENTITY = Identity(bytes(32))


@dataclass
class FakeWorker:
    """Keeps a state as llama.cpp would, and what it says of its origin."""

    geometry: ModelGeometry = GEOMETRY
    state: SequenceState | None = None
    state_form: StateForm = FORM
    position: int = 0
    prefilled: list[int] = field(default_factory=list)
    identity: Identity = IDENTITY
    cache: str = "f16"
    doubt: str = ""

    @property
    def origin(self) -> Origin | None:
        return self.state.first(self.position).origin if self.state and self.position else Origin((), b"")

    def matching(self, tokens: Sequence[int]) -> int:
        origin = self.origin
        if origin is None or origin.identity != self.identity.digest:
            return 0
        alike = [held == wanted for held, wanted in zip(origin.tokens, tokens)]
        return [*alike, False].index(False)

    def checked(self, tokens: Sequence[int]) -> list[int]:
        return list(tokens)

    def blank_state(self, cells: int) -> SequenceState:
        return blank_state(range(cells), self.state_form)

    def get_state(self) -> SequenceState:
        assert self.state
        return self.state

    def set_state(self, state: SequenceState) -> None:
        self.state, self.position = state, state.cells

    def clear(self) -> None:
        self.state, self.position = None, 0

    def truncate(self, position: int) -> None:
        self.position = min(self.position, position)
        self.state = self.state if self.position else None

    def prefill(self, tokens: list[int]) -> str:
        self.prefilled = list(tokens)
        return "logits"


def filled_worker(tokens: Sequence[int]) -> FakeWorker:
    """A worker that has read these tokens."""
    state = blank_state(range(len(tokens)), FORM)
    generator = np.random.default_rng(5)
    for tensor in state.tensors():
        tensor[:] = generator.normal(size=tensor.shape)
    state.origin = Origin(tuple(tokens), IDENTITY.digest)
    return FakeWorker(state=state, position=len(tokens))
