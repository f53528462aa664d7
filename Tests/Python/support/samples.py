"""Pages for tests: small models, values like those of a cache, always the same for the same seed."""

import time

import numpy as np

import kvtc

TOKENS = 32
GEOMETRY = kvtc.Geometry.from_heads(layers=4, kv_heads=2, head_dim=16)


def values(count, geometry=GEOMETRY, tokens=TOKENS, seed=1):
    """One dictionary {(layer, role): (tokens, heads, head_dim) float32} a page."""
    rng = np.random.default_rng(seed)
    return [
        {(t.layer, t.role): rng.normal(0, 1, (tokens, t.heads, t.head_dim)).astype(np.float32) for t in geometry.tensors}
        for _ in range(count)
    ]


def cast(array, element):
    """Values in a session's element type, as numpy holds it."""
    if element == kvtc.Element.BF16:
        return (array.view(np.uint32) >> 16).astype(np.uint16)
    if element.size == 1:
        # Any byte whose exponent is not all ones is a finite number in both formats of eight bits.
        return (np.abs(array) * 30).astype(np.uint8) % 0x78
    return array.astype(element.dtype)


def lay_out(page, layout, geometry=GEOMETRY, tokens=TOKENS):
    """The bytes of a page."""
    data = bytearray(layout.page_bytes(geometry, tokens))
    for name, view in layout.views(geometry, tokens, data).items():
        view[...] = cast(page[name], layout.element)
    return bytes(data)


LAYOUT = kvtc.Layout()


def random_pages(count, seed=1, layout=LAYOUT, tokens=TOKENS, geometry=GEOMETRY):
    """Keys and the bytes of as many pages."""
    rng = np.random.default_rng(seed + 1000)
    keys = kvtc.page_keys(rng.integers(0, 1000, count * tokens), tokens)
    return keys, [lay_out(page, layout, geometry, tokens) for page in values(count, geometry, tokens, seed)]


def to_push(keys, contents, tokens=TOKENS):
    return [kvtc.Page(key, index * tokens, page) for index, (key, page) in enumerate(zip(keys, contents))]


def open_session(client, name="test", **options):
    options.setdefault("geometry", GEOMETRY)
    options.setdefault("page_tokens", TOKENS)
    return client.open_session(name, **options)


def until(condition, seconds=60):
    """Waits for what has to become true; a machine that stands still for a while fails no test."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not become true"
        time.sleep(0.02)
