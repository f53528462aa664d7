"""LMCache keeps its objects in kvtcd: ``KvtcL2Adapter`` is an L2 adapter of the kind ``plugin``.

Needs nothing of LMCache before the class is made; written for 0.5.6. The kind ``native_plugin`` hands over bytes without their shape and
type, of which a coder can make little.
"""

from .adapter import KvtcL2Adapter
from .objects import ObjectForm

__all__ = ["KvtcL2Adapter", "ObjectForm"]
