"""Worker client of kvtcd, the KV-cache offload daemon."""

from .errors import ErrorCode, KvtcError, WireError
from .geometry import Element, Geometry, Grouping, Layout, Order, Role, RotaryStyle, Tensor
from .keys import page_keys
from .policy import Mode, Policy, QualityKind, Range
