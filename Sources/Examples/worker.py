"""The least that a worker does: it pushes two pages of a cache, asks for them by their keys, pulls them back and compares.

    python worker.py /run/kvtcd/kvtcd.sock
"""

import sys

import numpy as np

import kvtc

# The model: two layers with one head of 8 values each for K and V, kept as f16. RoPE matters to a profile alone.
GEOMETRY = kvtc.Geometry.from_heads(layers=2, kv_heads=1, head_dim=8, rope_base=None)
PAGE_TOKENS = 16
# Names all that K and V depend on besides the tokens; `kvtc.Identity("model.gguf")` makes one of a file.
IDENTITY = b"digest of the weights, adapters and scales"


def main(socket: str) -> None:
    # Numbers between 1 and 2, as f16: what an engine would have computed.
    tokens = np.arange(2 * PAGE_TOKENS)
    elements = kvtc.Layout().page_bytes(GEOMETRY, PAGE_TOKENS) // 2
    pages = [(0x3C00 + (np.arange(elements) + page) % 256).astype("<u2").tobytes() for page in range(2)]

    with kvtc.connect(socket, name="example in Python") as client:
        policy = kvtc.Policy(mode="lossless")
        with client.open_session(
            "example", geometry=GEOMETRY, page_tokens=PAGE_TOKENS, policy=policy, identity=IDENTITY
        ) as session:
            keys = kvtc.page_keys(tokens, PAGE_TOKENS)
            outcomes = session.push(kvtc.Page(key, i * PAGE_TOKENS, page) for i, (key, page) in enumerate(zip(keys, pages, strict=True)))
            if any(outcome not in (kvtc.PushOutcome.STORED, kvtc.PushOutcome.PRESENT) for outcome in outcomes):
                sys.exit(f"not stored: {[outcome.name for outcome in outcomes]}")
            if session.lookup(keys).leading_run != len(keys):
                sys.exit("the pages are not there")
            # None for a page that is not to be had: an engine computes it anew.
            if session.fetch(keys) != pages:
                sys.exit("other bytes came back")
    print(f"{len(pages)} pages of {len(pages[0])} bytes came back as they were")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: worker.py SOCKET")
    try:
        main(sys.argv[1])
    except kvtc.KvtcError as error:
        sys.exit(str(error))
