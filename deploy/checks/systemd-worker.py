#!/usr/bin/env python3
"""A worker of the unit tests: pushes pages made from a seed, or pulls them back and compares them.

Prints one JSON object: {"pages": asked for, "found": hits, "identical": all of them and not a bit different}. `load` pushes
few at a time, prints how many have been acknowledged after every time, and goes on by itself when the daemon dies.
"""

import argparse
import json
import sys

import numpy as np

import kvtc

GEOMETRY = kvtc.Geometry.from_heads(layers=4, kv_heads=2, head_dim=64, rope_base=10000.0)
PAGE_TOKENS = 64
LOAD_STEP = 4


def pages(count: int, seed: int) -> tuple[list[bytes], list[bytes]]:
    """Keys and contents; smooth along the tokens, as K and V are, so that the lossless coder has something to do."""
    layout = kvtc.Layout(kvtc.Element.F16)
    elements = layout.page_bytes(GEOMETRY, PAGE_TOKENS) // 2
    # A generator of its own for every page: fewer or more pages of a seed share their beginning.
    generators = [np.random.default_rng([seed, index]) for index in range(count)]
    tokens = np.concatenate([rng.integers(0, 50000, PAGE_TOKENS) for rng in generators])
    contents = [np.cumsum(rng.normal(0, 0.01, elements)).astype(np.float16).tobytes() for rng in generators]
    return kvtc.page_keys(tokens, PAGE_TOKENS), contents


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["push", "pull", "load"])
    parser.add_argument("--socket", help="default: KVTC_SOCKET, then /run/kvtcd/kvtcd.sock")
    parser.add_argument("--pages", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stepwise", action="store_true", help="load waits for a line on standard input after every time")
    options = parser.parse_args()

    keys, contents = pages(options.pages, options.seed)
    with kvtc.connect(options.socket, name="test-worker", arena_bytes=16 << 20) as client:
        with client.open_session("test-worker", geometry=GEOMETRY, page_tokens=PAGE_TOKENS) as session:
            if options.action == "push":
                outcomes = session.push(kvtc.Page(k, i * PAGE_TOKENS, c) for i, (k, c) in enumerate(zip(keys, contents, strict=True)))
                kept = (kvtc.PushOutcome.STORED, kvtc.PushOutcome.PRESENT)
                if any(outcome not in kept for outcome in outcomes):
                    print(f"not stored: {[outcome.name for outcome in outcomes]}", file=sys.stderr)
                    return 1
            for first in range(0, len(keys) if options.action == "load" else 0, LOAD_STEP):
                some = range(first, min(first + LOAD_STEP, len(keys)))
                outcomes = session.push(kvtc.Page(keys[i], i * PAGE_TOKENS, contents[i]) for i in some)
                if any(outcome not in (kvtc.PushOutcome.STORED, kvtc.PushOutcome.PRESENT) for outcome in outcomes):
                    print(f"not stored: {[outcome.name for outcome in outcomes]}", file=sys.stderr)
                    return 1
                print(some.stop, flush=True)
                if options.stepwise:
                    sys.stdin.readline()
            back = session.fetch(keys)
    result = {"pages": len(keys), "found": sum(page is not None for page in back), "identical": back == contents}
    print(json.dumps(result))
    return 0 if result["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
