"""Sessions of different identities never meet each other's pages; the builder of identities confuses nothing and refuses
what it cannot represent."""

import dataclasses
import itertools
import math
import os
import random
from fractions import Fraction

import numpy as np
import pytest

import kvtc
from kvtc import Element, ErrorCode, Identity, Layout, PushOutcome, digests
from kvtc.protocol import messages

from raw import Raw
from samples import GEOMETRY, TOKENS, open_session, random_pages, to_push
from scripted import ScriptedDaemon

WEIGHTS = bytes(range(32))


def expect_apart(client, one, other, keys):
    """Two kinds of session push other bytes under the same keys; both are kept, each gets its own."""
    kept = []
    for number, options in enumerate((one, other)):
        session = open_session(client, **options)
        assert session.lookup(keys).leading_run == 0
        # Bytes this small are finite numbers in every element type.
        rng = np.random.default_rng(number)
        kept.append([rng.integers(0, 60, session.page_bytes, np.uint8).tobytes() for _ in keys])
        assert session.push(to_push(keys, kept[-1])) == [PushOutcome.STORED] * len(keys)
    for options, pages in zip((one, other), kept):
        session = open_session(client, **options)
        assert session.lookup(keys).leading_run == len(keys)
        assert session.fetch(keys) == pages
        assert session.push(to_push(keys, pages)) == [PushOutcome.PRESENT] * len(keys)


def shapes(**changes):
    return {"geometry": kvtc.Geometry.from_heads(**({"layers": 4, "kv_heads": 2, "head_dim": 8} | changes))}


@pytest.mark.parametrize(
    "one, other",
    [
        ({"identity": b"base"}, {"identity": b"instruct"}),
        ({"identity": b""}, {"identity": b"base"}),
        ({"identity": b"\0"}, {"identity": b"\0\0"}),
        ({"identity": Identity(WEIGHTS)}, {"identity": Identity(WEIGHTS, adapters=[(bytes(32), 1)])}),
        ({"identity": Identity(WEIGHTS, part="tp0/2")}, {"identity": Identity(WEIGHTS, part="tp1/2")}),
        ({"layout": Layout(Element.F16)}, {"layout": Layout(Element.BF16)}),
        ({"layout": Layout(Element.E4M3)}, {"layout": Layout(Element.E5M2)}),
        (shapes(), shapes(layers=5)),
        (shapes(), shapes(kv_heads=4, head_dim=4)),
        (shapes(), shapes(first_layer=4)),
        (shapes(), shapes(rope_base=500_000.0)),
        (shapes(), shapes(rope_style="interleaved")),
        (shapes(), shapes(rope_style="none")),
    ],
    ids=lambda options: "-".join(options),
)
def test_pages_of_another_identity_type_or_shape_never_meet(client, one, other):
    expect_apart(client, one, other, random_pages(3)[0])


def test_identity_counts_for_every_request_with_keys(client):
    keys, contents = random_pages(4)
    mine, others = (open_session(client, identity=Identity(WEIGHTS, salt=salt)) for salt in ("a", "b"))
    mine.push(to_push(keys, contents))
    client.flush()
    assert others.lookup(keys).leading_run == 0 and others.fetch(keys) == [None] * 4
    assert others.touch(keys) == 0 and others.prefetch(keys) == 0 and others.drop(keys) == 0
    assert mine.touch(keys) == 4 and mine.fetch(keys) == contents
    assert mine.drop(keys[3:]) == 1
    assert open_session(client, identity=Identity(WEIGHTS, salt="a")).fetch(keys) == [*contents[:3], None]


def test_keys_without_a_session_are_dropped_under_every_identity(daemon, client):
    keys, contents = random_pages(2)
    for identity in (b"", b"one", b"other"):
        open_session(client, identity=identity).push(to_push(keys, contents))
    assert client.drop(keys[:1]) == 3
    for identity in (b"", b"one", b"other"):
        assert open_session(client, identity=identity).fetch(keys) == [None, contents[1]]
    assert client.drop() == 3


def test_pages_are_found_again_after_a_restart(daemon):
    keys, contents = random_pages(3)
    with daemon.connect() as client:
        open_session(client, identity=b"model").push(to_push(keys, contents))
        client.flush()
    daemon.restart()
    with daemon.connect() as client:
        assert open_session(client, identity=b"model").fetch(keys) == contents
        assert open_session(client).fetch(keys) == [None] * 3


def test_an_identity_survives_a_new_connection(daemon, client):
    keys, contents = random_pages(2)
    session = open_session(client, identity=b"model")
    daemon.restart()
    assert session.push(to_push(keys, contents)) == [PushOutcome.STORED] * 2
    assert open_session(client).lookup(keys).leading_run == 0
    assert open_session(client, identity=b"model").fetch(keys) == contents


def test_pulls_of_pages_of_another_shape_do_not_fill_the_log(daemon, client):
    keys, contents = random_pages(50)
    open_session(client).push(to_push(keys, contents))
    session = open_session(client, layout=Layout(Element.BF16))
    for _ in range(5):
        assert session.fetch(keys) == [None] * 50
    # A line of each: serving, an arena nobody keeps, two sessions opened, one closed, those of other shapes at most once.
    session.close()
    assert daemon.logged('msg="session closed"', times=2).count("\n") <= 10


def test_a_client_without_the_feature_bit_goes_on_as_before(daemon, client):
    keys, contents = random_pages(1)
    open_session(client).push(to_push(keys, contents))
    old = messages.OpenSession("old", b"", GEOMETRY, page_tokens=TOKENS)
    new = messages.OpenIdentifiedSession("new", b"", GEOMETRY, page_tokens=TOKENS, identity=b"")
    with Raw(daemon.socket) as raw:
        code, body = raw.ask(old)
        assert code == 0
        number = messages.OpenSessionReply.decode(body).session
        # It finds what a new client pushes without an identity.
        code, body = raw.ask(messages.Lookup(number, 0, keys))
        assert code == 0 and messages.LookupReply.decode(body).leading_run == 1
        assert raw.ask(new)[0] == ErrorCode.TRAILING_BYTES
    with Raw(daemon.socket, hello=False) as raw:
        assert raw.ask(messages.Hello(features=messages.FEATURES))[0] == 0
        assert raw.ask(old)[0] == ErrorCode.TRUNCATED
        assert raw.ask(new)[0] == 0


def test_an_identity_has_a_limit(client):
    open_session(client, identity=bytes(4096))
    with pytest.raises(kvtc.KvtcError) as caught:
        open_session(client, identity=bytes(4097))
    assert (caught.value.code, caught.value.field) == (ErrorCode.INVALID_FIELD, "identity")


@pytest.mark.parametrize("identity", ["model", None, 5, WEIGHTS.hex(), [WEIGHTS]], ids=repr)
def test_an_identity_is_bytes_or_made_by_the_builder(client, identity):
    with pytest.raises(TypeError, match="identity"):
        open_session(client, identity=identity)


def test_a_daemon_that_knows_no_identities_gets_none(tmp_path):
    old = ScriptedDaemon(tmp_path / "s")
    with kvtc.connect(old.path, arena_bytes=0) as client:
        with pytest.raises(kvtc.KvtcError, match="knows no identities.*upgrade kvtcd"):
            client.open_session("s", identity=b"model")
        client.open_session("s")
    assert [type(request).__name__ for request in old.seen] == ["Hello", "OpenSession"]
    old.close()


# The builder.

VARIANTS = [
    {"weights": WEIGHTS},
    {"weights": WEIGHTS[::-1]},
    {"adapters": [(bytes(32), 1.0)]},
    {"adapters": [(bytes(32), 0.5)]},
    {"adapters": [(bytes(32), 1.0), (WEIGHTS, 1.0)]},
    {"adapters": [(WEIGHTS, 1.0), (bytes(32), 1.0)]},
    {"adapters": [(bytes(32), math.nextafter(0.5, 1))]},
    {"kv_type": "fp8_e4m3"},
    {"kv_type": "q8_0"},
    {"kv_scales": 0.5},
    {"kv_scales": 0.25},
    {"kv_scales": 0},
    {"kv_scales": [0.5]},
    {"kv_scales": [0.5, 0.25]},
    {"kv_scales": [[0.5, 0.25]]},
    {"kv_scales": [[0.5], [0.25]]},
    {"kv_scales": []},
    {"kv_scales": np.zeros((0, 3))},
    {"kv_scales": {"k": 0.5, "v": 0.25}},
    {"kv_scales": {"k": 0.25, "v": 0.5}},
    {"kv_scales": {}},
    {"part": "tp0/2"},
    {"part": "tp1/2"},
    {"salt": "tp0/2"},
    {"salt": b"tp0/2"},
    {"extra": {"a": "b"}},
    {"extra": {"a": b"b"}},
    {"extra": {"a": "", "b": ""}},
    {"extra": {"ab": ""}},
    {"extra": {"a": 1}},
    {"extra": {"a": "1"}},
    {"extra": {"a": -1}},
    {"extra": {"a": 2**64 + 1}},
    {"extra": {"a": 1.5}},
    {"extra": {"part": "tp0/2"}},
]


def build(changes):
    return Identity(**({"weights": WEIGHTS} | changes))


def test_different_things_have_different_digests():
    digests_of = {build(changes).digest: changes for changes in VARIANTS}
    assert len(digests_of) == len(VARIANTS)
    pairs = [a | b for a, b in itertools.combinations(VARIANTS, 2) if not a.keys() & b.keys()]
    assert len({build(changes).digest for changes in pairs} | set(digests_of)) >= len(pairs)
    assert len({build(changes) for changes in pairs}) == len({repr(sorted(changes.items(), key=repr)) for changes in pairs})


def test_equal_things_have_equal_digests():
    equal = [
        [{"extra": {"a": 1, "b": 2}}, {"extra": {"b": 2.0, "a": True}}, {"extra": {"a": np.int8(1), "b": Fraction(2)}}],
        [{"kv_scales": [0.5, 2]}, {"kv_scales": np.array([0.5, 2], np.float32)}, {"kv_scales": np.array([0.5, 2], np.float16)}],
        [{"kv_scales": 0.0}, {"kv_scales": -0.0}, {"kv_scales": np.float32(0)}],
        [{"kv_scales": [0.0]}, {"kv_scales": [-0.0]}],
        [{"salt": ""}, {"salt": b""}, {}, {"adapters": ()}, {"extra": {}}, {"kv_scales": None}],
        [{"adapters": [(bytes(32), 1)]}, {"adapters": ((bytes(32), 1.0),)}],
        [{"extra": {"a": b"x"}}, {"extra": {"a": bytearray(b"x")}}],
    ]
    for group in equal:
        assert len({build(changes) for changes in group}) == 1, group


def test_a_salt_is_changed_by_replacing_and_not_shown():
    one = Identity(WEIGHTS, part="tp0/2", salt="secret")
    assert dataclasses.replace(one, salt="other") == Identity(WEIGHTS, part="tp0/2", salt="other") != one
    assert "secret" not in repr(one)


def test_random_identities_are_equal_only_where_their_arguments_are():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    words = ["", "a", "b", "ab", "\0", "1", "é"]

    def some():
        return {
            "weights": rng.choice([WEIGHTS, bytes(16), [WEIGHTS[:16], WEIGHTS[16:]], [WEIGHTS[16:], WEIGHTS[:16]]]),
            "adapters": [(bytes([rng.randrange(2)] * 16), rng.choice([0, 1, 0.1])) for _ in range(rng.randrange(3))],
            "kv_type": rng.choice(words),
            "part": rng.choice(words),
            "salt": rng.choice(words),
            "extra": {rng.choice(words): rng.choice([*words, 0, 1, 0.5, b"a"]) for _ in range(rng.randrange(3))},
        }

    def plain(changes):
        weights = changes["weights"]
        weights = sorted(weights) if isinstance(weights, list) else [weights]
        return changes | {"weights": weights}

    known = {}
    for _ in range(4000):
        changes = some()
        assert known.setdefault(build(changes).digest, plain(changes)) == plain(changes)


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"weights": b"llama-3-8b"}, "weights"),
        ({"weights": b""}, "weights"),
        ({"weights": bytes(65)}, "weights"),
        ({"weights": []}, "weights"),
        ({"weights": None}, "weights"),
        ({"weights": "no such file"}, "weights"),
        ({"weights": "/dev"}, "weights"),
        ({"weights": "/dev/zero"}, "weights"),
        ({"weights": ["no such file"]}, r"weights\[0\]"),
        ({"adapters": {"a": 1}}, "adapters"),
        ({"adapters": [bytes(32)]}, r"adapters\[0\]"),
        ({"adapters": [(bytes(32), math.nan)]}, r"scale of adapters\[0\]"),
        ({"adapters": [(bytes(32), math.inf)]}, r"scale of adapters\[0\]"),
        ({"adapters": [(bytes(32), "1")]}, r"scale of adapters\[0\]"),
        ({"adapters": [(bytes(32), Fraction(1, 3))]}, r"scale of adapters\[0\]"),
        ({"kv_type": 8}, "kv_type"),
        ({"kv_scales": [1.0, math.nan]}, "kv_scales"),
        ({"kv_scales": math.nan}, "kv_scales"),
        ({"kv_scales": ["a"]}, "kv_scales"),
        ({"kv_scales": [[1], [1, 2]]}, "kv_scales"),
        ({"kv_scales": [2**53 + 1]}, "kv_scales"),
        ({"kv_scales": {"k": [math.inf]}}, "kv_scales"),
        ({"kv_scales": {1: 2}}, "kv_scales"),
        ({"part": b"tp0/2"}, "part"),
        ({"part": "\ud800"}, "part"),
        ({"salt": 5}, "salt"),
        ({"extra": [("a", 1)]}, "extra"),
        ({"extra": {1: "a"}}, "extra"),
        ({"extra": {"a": None}}, r"extra\['a'\]"),
        ({"extra": {"a": [1]}}, r"extra\['a'\]"),
        ({"extra": {"a": math.nan}}, r"extra\['a'\]"),
        ({"extra": {"a": 1j}}, r"extra\['a'\]"),
    ],
    ids=str,
)
def test_what_cannot_be_represented_is_refused(changes, field):
    with pytest.raises((TypeError, ValueError), match=field):
        build(changes)


def test_files_count_by_content_and_not_by_name(tmp_path):
    contents = {"a.gguf": b"one", "b.gguf": b"one", "c.gguf": b"two"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / name for name in contents)
    assert Identity(a) == Identity(str(b)) == Identity([b]) != Identity(c)
    assert Identity([a, c]) == Identity([c, b]) != Identity([a, b])
    assert Identity(a, adapters=[(c, 1)]) == Identity(b, adapters=[(c, 1)]) != Identity(a, adapters=[(b, 1)])


def test_a_kept_digest_is_used_for_the_same_file_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Files of a test are new; kept all the same.
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**18))
    path = tmp_path / "model"
    path.write_bytes(b"before")
    made = []
    digest = digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *arguments: made.append(1) or digest(*arguments))
    first = digests.file_digest(path)
    os.symlink(path, tmp_path / "link")
    assert digests.file_digest(path) == first == digests.file_digest(tmp_path / "link") and len(made) == 1
    times = path.stat()
    path.write_bytes(b"behind")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digests.file_digest(path) != first and len(made) == 2
    replacement = tmp_path / "new"
    replacement.write_bytes(b"before")
    os.replace(replacement, path)
    assert digests.file_digest(path) == first and len(made) == 3
    for record in (tmp_path / "cache" / "kvtc" / "digests").iterdir():
        record.write_text('{"state": 5}')
    assert digests.file_digest(path) == first and len(made) == 4


def test_a_file_that_has_just_changed_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model"
    path.write_bytes(b"new")
    digests.file_digest(path)
    assert not (tmp_path / "cache").exists()
