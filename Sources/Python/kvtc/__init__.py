"""Worker client of kvtcd, the KV-cache offload daemon.

    model = kvtc.Identity("model.gguf")
    with kvtc.connect() as client, client.open_session("chat", geometry=geometry, identity=model) as session:
        keys = kvtc.page_keys(token_ids, session.page_tokens, session.profile)
        session.push(kvtc.Page(key, i * session.page_tokens, page) for i, (key, page) in enumerate(zip(keys, pages)))
        back = session.fetch(keys)
"""

from .blocks import Block, BlockLookup, StoredPage
from .client import Client, connect
from .identity import Identity
from .keys import Span, page_keys, page_runs, part_key
from .leases import Lease, Lookup
from .protocol.errors import (
    CacheMismatch,
    ConnectionLost,
    ErrorCode,
    KvtcError,
    RequestTimedOut,
    Unavailable,
    Unreachable,
    WireError,
)
from .protocol.geometry import Element, Geometry, Grouping, Layout, Order, Role, RotaryStyle, Tensor
from .protocol.messages import PullOutcome, PushOutcome, Residence
from .protocol.policy import BlockMode, Code, Mode, Policy, QualityKind, Range
from .pull import Part
from .push import Page
from .ranks import JointLookup, lookup_all
from .session import Session
from .transport.deadline import within

__version__ = "0.1.0"

__all__ = [
    "Block",
    "BlockLookup",
    "BlockMode",
    "CacheMismatch",
    "Client",
    "Code",
    "ConnectionLost",
    "Element",
    "ErrorCode",
    "Geometry",
    "Grouping",
    "Identity",
    "JointLookup",
    "KvtcError",
    "Layout",
    "Lease",
    "Lookup",
    "Mode",
    "Order",
    "Page",
    "Part",
    "Policy",
    "PullOutcome",
    "PushOutcome",
    "QualityKind",
    "Range",
    "RequestTimedOut",
    "Residence",
    "Role",
    "RotaryStyle",
    "Session",
    "Span",
    "StoredPage",
    "Tensor",
    "Unavailable",
    "Unreachable",
    "WireError",
    "__version__",
    "connect",
    "lookup_all",
    "page_keys",
    "page_runs",
    "part_key",
    "within",
]
