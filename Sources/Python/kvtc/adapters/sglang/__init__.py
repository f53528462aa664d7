"""SGLang's hierarchical cache keeps its pages in kvtcd: ``KvtcStorage`` is a storage backend of the kind ``dynamic``.

Needs nothing of SGLang before the class is made; written for 0.5.23.
"""

from .pool import HostPages
from .storage import KvtcStorage

__all__ = ["HostPages", "KvtcStorage"]
