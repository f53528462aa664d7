"""The codec on the device that holds an engine's cache: blocks of kvtcd come in as they are stored, and go out as they are to be stored.

Needs torch and triton (the extra ``kvtc[gpu]``). The kernels are Triton's; with ``TRITON_INTERPRET=1`` in the environment they run on tensors
of the processor, for tests.
"""

from .blocks import BadBlock
from .cache import Cache
from .decoder import Decoder, Restored
from .encoder import Encoder, Page
from .memory import pinned
from .profile import BadProfile, Profile
from .selftest import NotExact

__all__ = ["BadBlock", "BadProfile", "Cache", "Decoder", "Encoder", "NotExact", "Page", "Profile", "Restored", "pinned"]
