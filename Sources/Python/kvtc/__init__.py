"""Worker client of kvtcd, the KV-cache offload daemon.

    with kvtc.connect() as client, client.open_session("chat", geometry=geometry) as session:
        keys = kvtc.page_keys(token_ids, session.page_tokens, session.profile)
        session.push(kvtc.Page(key, i * session.page_tokens, page) for i, (key, page) in enumerate(zip(keys, pages)))
        back = session.fetch(keys)
"""

from .client import Client, connect
from .errors import ConnectionLost, ErrorCode, KvtcError, RequestTimedOut, Unreachable, WireError
from .geometry import Element, Geometry, Grouping, Layout, Order, Role, RotaryStyle, Tensor
from .identity import Identity
from .keys import Span, page_keys, page_runs, part_key
from .messages import PullOutcome, PushOutcome, Residence
from .policy import Mode, Policy, QualityKind, Range
from .ranks import JointLookup, lookup_all
from .session import Lease, Lookup, Page, Part, Session

__all__ = [
    "Client",
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
    "Tensor",
    "Unreachable",
    "WireError",
    "connect",
    "lookup_all",
    "page_keys",
    "page_runs",
    "part_key",
]
