"""Memory of the processor that a device copies from and to by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def pinned(memory: np.ndarray) -> Iterator[None]:
    """Has the GPU know memory, such as a client's arena (`client.arena().array`), so that blocks go to it from where they lie, at the speed of
    the bus and beside the processor. Without a GPU it does nothing.

    Raises RuntimeError where the driver refuses, as it does beyond what the process may lock.
    """
    if not torch.cuda.is_available():
        yield
        return
    runtime = torch.cuda.cudart()
    error = runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
    if int(error):
        raise RuntimeError(f"{memory.nbytes} bytes cannot be pinned: {error}")
    try:
        yield
    finally:
        runtime.cudaHostUnregister(memory.ctypes.data)
