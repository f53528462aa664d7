"""Pages through the real daemon: what goes in comes out, in every layout, inline and through the arena."""

import numpy as np
import pytest

import kvtc
from kvtc import Element, Grouping, Layout, Order, PullOutcome, PushOutcome, Residence

from samples import GEOMETRY, TOKENS, lay_out, open_session, random_pages, to_push, values

LAYOUTS = [Layout(element, order, grouping) for element in Element for order in Order for grouping in Grouping] + [
    Layout(Element.F16, order, grouping, 1)
    for order in (Order.TENSOR_TOKEN_HEAD, Order.TENSOR_HEAD_TOKEN)
    for grouping in (Grouping.ROLES_APART, Grouping.LAYER_PAIRS)
]


def test_every_layout_comes_back_bit_identical(daemon):
    with daemon.connect() as client:
        for number, layout in enumerate(LAYOUTS):
            keys, contents = random_pages(6, seed=number, layout=layout)
            with open_session(client, layout=layout) as session:
                assert session.push(to_push(keys, contents)) == [PushOutcome.STORED] * 6, layout
                assert session.fetch(keys) == contents, layout
                client.flush()
                assert session.fetch(keys) == contents, f"{layout} after flush"


def test_a_page_may_be_pulled_in_another_layout(client):
    page = values(1)[0]
    keys, _ = random_pages(1)
    pushed, wanted = Layout(Element.F16), Layout(Element.F16, Order.TENSOR_HEAD_TOKEN, Grouping.LAYER_PAIRS, 1)
    open_session(client, layout=pushed).push(to_push(keys, [lay_out(page, pushed)]))
    assert open_session(client, layout=wanted).fetch(keys) == [lay_out(page, wanted)]


@pytest.mark.parametrize("arena_bytes", [0, 1 << 20], ids=["inline", "small arena"])
def test_more_pages_than_fit_at_once(daemon, arena_bytes):
    keys, contents = random_pages(300)
    with daemon.connect(arena_bytes=arena_bytes) as client, open_session(client) as session:
        session.push(to_push(keys, contents))
        assert session.fetch(keys) == contents


def test_layer_ranges_and_steps(client):
    layout = Layout(Element.F16)
    page = values(1)[0]
    keys, contents = random_pages(1)
    session = open_session(client, layout=layout)
    session.push(to_push(keys, contents))
    parts = [(part.layers, bytes(part.data)) for part in session.pull(keys, layer_step=1)]
    assert sorted(layers.start for layers, _ in parts) == [0, 1, 2, 3] and all(len(layers) == 1 for layers, _ in parts)
    for layers, data in [*parts, *((p.layers, bytes(p.data)) for p in session.pull(keys, layers=range(1, 3)))]:
        expected = bytearray(layout.page_bytes(GEOMETRY, TOKENS, layers))
        for name, view in layout.views(GEOMETRY, TOKENS, expected, layers).items():
            view[...] = page[name].astype(np.float16)
        assert data == bytes(expected), layers


def test_first_layers_of_all_pages_come_before_later_ones(daemon):
    keys, contents = random_pages(64)
    # A request may take a quarter of the arena, which is one layer of these pages. One of them is not there.
    with daemon.connect(arena_bytes=1 << 20) as client, open_session(client) as session:
        assert session.page_bytes * len(keys) == client.arena().length
        session.push(to_push(keys[:40] + keys[41:], contents[:40] + contents[41:]))
        parts = [(part.index, part.layers.start, part.outcome) for part in session.pull(keys, layer_step=1)]
        hits = [(layer, index) for index, layer, outcome in parts if outcome == PullOutcome.HIT]
        assert sorted(hits) == [(layer, index) for layer in range(4) for index in range(64) if index != 40]
        assert [index for index, _, outcome in parts if outcome != PullOutcome.HIT] == [40]
        layers = [layer for layer, _ in hits]
        assert layers == sorted(layers)


def test_a_short_last_page(client):
    session = open_session(client, layout=Layout(Element.F16, Order.TOKEN_TENSOR_HEAD))
    keys, contents = random_pages(2, layout=session.layout)
    short = contents[1][: 5 * session.token_bytes]
    session.push(to_push(keys, [contents[0], short]))
    assert session.fetch(keys) == [contents[0], short]
    assert session.policy().tokens == TOKENS + 5


def test_the_first_page_with_a_key_wins(client):
    keys, contents = random_pages(2)
    open_session(client).push(to_push(keys[:1], contents[:1]))
    session = open_session(client)
    assert session.push(to_push(keys[:1], contents[1:])) == [PushOutcome.PRESENT]
    assert session.fetch(keys[:1]) == contents[:1]


def test_nan_and_infinity_come_back_bit_identical(client):
    layout = Layout(Element.F32)
    keys, contents = random_pages(4, layout=layout)
    array = np.frombuffer(contents[1], np.float32).copy()
    array[[0, 77, 500]] = [np.nan, np.inf, -np.inf]
    contents[1] = array.tobytes()
    session = open_session(client, layout=layout, policy=kvtc.Policy(sink=0, window=0, mode=kvtc.Mode.QUANT8))
    outcomes = session.push(to_push(keys, contents))
    assert outcomes == [PushOutcome.STORED, PushOutcome.NON_FINITE, PushOutcome.STORED, PushOutcome.STORED]
    client.flush()
    back = np.frombuffer(session.fetch(keys)[1], np.float32)
    spoilt = ~np.isfinite(array)
    assert (back.view(np.uint32)[spoilt] == array.view(np.uint32)[spoilt]).all()
    assert client.status()["counters"]["non_finite"] >= 1


def test_lookup_counts_the_leading_run(client):
    keys, contents = random_pages(5)
    session = open_session(client)
    session.push(to_push(keys, contents))
    session.drop([keys[3]])
    found = session.lookup(keys)
    assert found.leading_run == 3 and found.lease is None
    assert [place == Residence.ABSENT for place in found.residence] == [False, False, False, True, False]
    assert session.lookup([]).leading_run == 0


def test_a_lease_keeps_pages_and_ends(client):
    keys, contents = random_pages(4)
    session = open_session(client)
    session.push(to_push(keys, contents))
    with session.lookup(keys, lease_ms=60000).lease as lease:
        assert session.fetch(keys, lease=lease) == contents
        number = lease.number
    assert session.fetch(keys, lease=number) == contents
    # Of no use any more, but neither an error to give back nor one to pull under.
    ended = kvtc.Lease(client.connection, number)
    assert session.fetch(keys, lease=ended) == contents
    ended.release()


def test_misses_among_hits(client):
    keys, contents = random_pages(3)
    session = open_session(client)
    session.push(to_push(keys, contents))
    asked = [keys[0], bytes(32), keys[2]]
    assert session.fetch(asked) == [contents[0], None, contents[2]]
    assert {p.index: p.outcome for p in session.pull(asked)} == {0: PullOutcome.HIT, 1: PullOutcome.MISS, 2: PullOutcome.HIT}


def test_touch_drop_and_prefetch(client):
    keys, contents = random_pages(4)
    session = open_session(client)
    session.push(to_push(keys, contents))
    assert session.touch([*keys, bytes(32)], pin=True, ttl_seconds=3600) == 4
    assert session.touch(keys, pin=False) == 4
    assert session.prefetch([*keys, bytes(32)]) <= 4
    assert session.drop([keys[0], bytes(32)]) == 1
    assert session.fetch(keys) == [None, *contents[1:]]
    assert session.drop() == 3
    assert session.fetch(keys) == [None] * 4
    open_session(client).push(to_push(keys[:2], contents))
    assert client.drop() == 2


def test_pages_outlive_session_and_connection(daemon):
    keys, contents = random_pages(3)
    with daemon.connect() as client, open_session(client) as session:
        session.push(to_push(keys, contents))
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_flush_then_restart(daemon):
    keys, contents = random_pages(40)
    with daemon.connect() as client:
        instance = client.instance
        open_session(client).push(to_push(keys, contents))
        assert client.flush().pages >= 40
    daemon.restart()
    with daemon.connect() as client:
        assert client.instance != instance
        session = open_session(client)
        assert session.lookup(keys).leading_run == 40
        assert session.fetch(keys) == contents


def test_a_stop_keeps_what_was_not_flushed(daemon):
    keys, contents = random_pages(10)
    with daemon.connect() as client:
        open_session(client).push(to_push(keys, contents))
    daemon.restart()
    with daemon.connect() as client:
        assert open_session(client).fetch(keys) == contents


def test_a_stop_keeps_the_newest_where_the_disk_is_smaller_than_ram(make_daemon):
    daemon = make_daemon(**{"disk.budget": "2MiB"})
    conversations = [random_pages(40, seed) for seed in range(6)]
    with daemon.connect() as client:
        for keys, contents in conversations:
            open_session(client).push(to_push(keys, contents))
    daemon.logged("raise disk.budget above ram.budget")
    assert daemon.stop() == 1 and "pages, those least worth keeping, are not on disk" in daemon.log.read_text()
    daemon.start()
    with daemon.connect() as client:
        session = open_session(client)
        runs = [session.lookup(keys).leading_run for keys, _ in conversations]
        assert runs[-2:] == [40, 40] and runs[0] == 0
        for keys, contents in conversations[-2:]:
            assert open_session(client).fetch(keys) == contents


def test_what_ram_cannot_hold_goes_to_disk(make_daemon):
    daemon = make_daemon(**{"ram.budget": "4MiB"})
    keys, contents = random_pages(700)
    with daemon.connect() as client:
        session = open_session(client)
        outcomes = session.push(to_push(keys, contents))
        assert set(outcomes) == {PushOutcome.STORED}
        status = client.status()
        assert status["tiers"]["ram"]["used"] <= 4 << 20 and status["tiers"]["disk"]["pages"] > 0
        assert status["counters"]["evicted_to_disk"] > 0
        assert session.fetch(keys) == contents
        assert client.status()["counters"]["hits"] >= 700


@pytest.mark.parametrize("mode, bound", [(kvtc.Mode.QUANT8, 1e-3), (kvtc.Mode.QUANT4, 0.05)])
def test_sinks_and_window_stay_exact_in_lossy_modes(client, mode, bound):
    layout = Layout(Element.F16, Order.TOKEN_TENSOR_HEAD)
    keys, contents = random_pages(8, layout=layout)
    policy = kvtc.Policy(sink=4, window=40, mode=mode, protected=[(100, 110)])
    session = open_session(client, layout=layout, policy=policy)
    session.push(to_push(keys, contents))
    client.flush()
    pushed = np.frombuffer(b"".join(contents), np.float16).reshape(8 * TOKENS, -1).astype(np.float32)
    pulled = np.frombuffer(b"".join(session.fetch(keys)), np.float16).reshape(8 * TOKENS, -1).astype(np.float32)
    exact = (pushed == pulled).all(axis=1)
    assert exact[:4].all() and exact[-40:].all() and exact[100:110].all()
    assert not exact.all()
    assert ((pushed - pulled) ** 2).sum() / (pushed**2).sum() < bound


def test_a_rewritten_arena_never_becomes_a_corrupt_page(client):
    import threading

    stop = threading.Event()
    arena = client.arena()

    def scribble():
        noise = np.random.default_rng(1).integers(0, 256, 65536, np.uint8)
        while not stop.is_set():
            arena.array[:65536] = noise
            noise += 1

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        session = open_session(client, layout=Layout(Element.E4M3))
        keys, contents = random_pages(64, layout=session.layout)
        session.push(to_push(keys, contents))
        client.flush()
        for part in session.pull(keys):
            assert part.outcome == PullOutcome.HIT and len(part.data) == session.page_bytes
    finally:
        stop.set()
        writer.join()
    assert client.status()["counters"]["corrupt"] == 0


@pytest.mark.parametrize("layout", [Layout(Element.F16), Layout(Element.F16, Order.TOKEN_TENSOR_HEAD)], ids=str)
def test_a_page_larger_than_a_message_comes_in_layers(make_daemon, layout):
    # The page travels to the daemon in an arena, which has no such limit, and back without one.
    daemon = make_daemon(**{"limits.body": "8KiB"})
    keys, contents = random_pages(3, layout=layout)
    with daemon.connect() as client:
        open_session(client, layout=layout).push(to_push(keys, contents))
    with daemon.connect(arena_bytes=0) as client:
        assert client.server.max_body == 8192 < len(contents[0])
        assert open_session(client, layout=layout).fetch(keys) == contents


class Shared:
    """Memory of another library, which numpy sees by DLPack alone."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_pages_of_other_libraries_are_pushed_without_a_detour(client):
    keys, contents = random_pages(3)
    session = open_session(client)
    rows = [np.frombuffer(page, np.float16).copy() for page in contents]
    # Backwards in memory, so that it has to be gathered.
    scattered = np.empty(2 * len(rows[1]), np.float16)[::2]
    scattered[:] = rows[1]
    given = [Shared(rows[0]), Shared(scattered), memoryview(contents[2])]
    session.push([kvtc.Page(key, index * TOKENS, data) for index, (key, data) in enumerate(zip(keys, given))])
    assert session.fetch(keys) == contents


def test_a_tensor_that_numpy_cannot_read_is_refused_with_what_to_do(client):
    torch = pytest.importorskip("torch")
    keys, contents = random_pages(1)
    session = open_session(client)
    page = torch.frombuffer(bytearray(contents[0]), dtype=torch.float16)
    with pytest.raises(TypeError, match="view types that numpy does not know"):
        session.push([kvtc.Page(keys[0], 0, page.view(torch.bfloat16))])
    session.push([kvtc.Page(keys[0], 0, page)])
    assert session.fetch(keys) == contents
