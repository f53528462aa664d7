"""``kvtc.adapters.llama_cpp`` under a shorter name."""

from .adapters.llama_cpp import *  # noqa: F403
from .adapters.llama_cpp import __all__ as __all__
