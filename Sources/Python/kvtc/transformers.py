"""``kvtc.adapters.transformers`` under a shorter name."""

from .adapters.transformers import *  # noqa: F403
from .adapters.transformers import __all__ as __all__
