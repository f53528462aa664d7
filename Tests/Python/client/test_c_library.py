"""libkvtc against the real daemon, as programs in C have it: the same keys, bytes and outcomes as the Python client's."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import kvtc
from kvtc_evaluation.engines.c_library import INVALID, REFUSED, UNAVAILABLE, Failed, Library, c_policy

from conftest import ROOT, binary

HEADER = ROOT / "Sources" / "CKVTC" / "include"
GEOMETRY = kvtc.Geometry.from_heads(layers=4, kv_heads=2, head_dim=16)
LAYOUT = kvtc.Layout(grouping=kvtc.Grouping.LAYER_PAIRS)
IDENTITY = bytes(range(32))
SIZE = 16
TOKENS = np.arange(8 * SIZE)
PAGE_BYTES = LAYOUT.page_bytes(GEOMETRY, SIZE)


@pytest.fixture(scope="module")
def library():
    return Library(Path(binary("libkvtc.so", "KVTC_LIBRARY")))


@pytest.fixture
def options(library, daemon):
    made = library.options(daemon.socket, IDENTITY, GEOMETRY, LAYOUT)
    made.page_tokens = SIZE
    return made


def pages(count=8, seed=1):
    """Finite f16 pages with their keys, as kvtc_push takes them."""
    rows = np.random.default_rng(seed).standard_normal((count, PAGE_BYTES // 2)).astype(np.float16)
    keys = kvtc.page_keys(TOKENS, SIZE)
    return [(key, i * SIZE, SIZE, page) for i, (key, page) in enumerate(zip(keys, rows))]


def collected(session, keys, **how):
    """What kvtc_pull gave of each page, and its outcomes."""
    back = np.zeros((len(keys), PAGE_BYTES), np.uint8)

    def place(index, begin, end, data):
        layer = PAGE_BYTES // 4
        back[index, begin * layer : end * layer] = data

    return back, session.pull(keys, place, **how)


def test_keys_are_those_of_other_clients(library):
    profile = bytes(range(100, 132))
    assert library.page_keys(TOKENS, SIZE) == kvtc.page_keys(TOKENS, SIZE)
    assert library.page_keys(TOKENS[:-3], SIZE, profile) == kvtc.page_keys(TOKENS[:-3], SIZE, profile)
    assert library.page_keys([], SIZE) == []


@pytest.mark.parametrize("arena", [0, 1 << 20, 64 << 20])
@pytest.mark.parametrize("step", [0, 1, 3])
def test_pages_come_back_the_same(library, daemon, options, arena, step):
    options.arena_bytes = arena
    made = pages()
    keys = [key for key, *_ in made]
    with library.session(options) as session:
        assert session.opened == 0 and session.token_bytes * SIZE == PAGE_BYTES
        assert session.push(made) == [0] * 8 and session.push(made) == [1] * 8
        run, lease, residence = session.lookup([*keys, bytes(32)], lease_ms=5000)
        assert run == 8 and lease and residence[8] == 0 and 0 not in residence[:8]
        back, outcomes = collected(session, [*keys, bytes(32)], lease=lease, layer_step=step)
        assert outcomes == [0] * 8 + [1]
        assert all((back[i] == page.view(np.uint8)).all() for i, (*_, page) in enumerate(made))
        session.release(lease)
        session.release(lease)
    # Another client finds them under the same identity, and under no other.
    with daemon.connect() as client:
        same = client.open_session("python", geometry=GEOMETRY, layout=LAYOUT, page_tokens=SIZE, identity=IDENTITY)
        assert same.fetch(keys) == [page.tobytes() for *_, page in made]
        other = client.open_session("other", geometry=GEOMETRY, layout=LAYOUT, page_tokens=SIZE, identity=bytes(32))
        assert other.fetch(keys) == [None] * 8


def test_pages_of_a_python_client_come_to_c(library, daemon, options):
    made = pages()
    with daemon.connect() as client:
        session = client.open_session("python", geometry=GEOMETRY, layout=LAYOUT, page_tokens=SIZE, identity=IDENTITY)
        session.push([kvtc.Page(key, first, page.tobytes(), tokens) for key, first, tokens, page in made])
    with library.session(options) as session:
        back, outcomes = collected(session, [key for key, *_ in made])
        assert outcomes == [0] * 8 and (back == np.stack([page.view(np.uint8) for *_, page in made])).all()


def test_more_pages_than_the_arena_holds_travel_in_turns(library, options):
    options.page_tokens, options.arena_bytes = 1024, 1 << 20
    tokens = np.arange(9 * 1024)
    rows = np.random.default_rng(2).standard_normal((9, 1024 * 256)).astype(np.float16)
    keys = kvtc.page_keys(tokens, 1024)
    back = {}
    with library.session(options) as session:
        assert session.push([(key, i * 1024, 1024, row) for i, (key, row) in enumerate(zip(keys, rows))]) == [0] * 9
        outcomes = session.pull(keys, lambda index, begin, end, data: back.__setitem__(index, bytes(data)))
    assert outcomes == [0] * 9 and [back[i] for i in range(9)] == [row.tobytes() for row in rows]


def test_a_session_goes_on_after_the_daemon_was_killed(library, daemon, options):
    made = pages()
    keys = [key for key, *_ in made]
    with library.session(options) as session:
        session.push(made)
        session.flush()
        daemon.stop(signal.SIGKILL)
        daemon.start()
        back, outcomes = collected(session, keys)
        assert outcomes == [0] * 8 and (back == np.stack([page.view(np.uint8) for *_, page in made])).all()
        # Its policy is still the one that was set.
        session.set_policy(kvtc.Policy(mode="quant8", sink=0, window=0))
        daemon.restart()
        session.lookup(keys)
        with daemon.connect() as client:
            assert [s["mode"] for s in client.status()["sessions"]] == ["quant8"]


def test_without_a_daemon_calls_fail_and_the_session_works_when_it_comes(library, make_daemon):
    daemon = make_daemon()
    options = library.options(daemon.socket, IDENTITY, GEOMETRY, LAYOUT)
    options.page_tokens = SIZE
    assert daemon.stop() == 0
    with library.session(options) as session:
        assert session.opened == UNAVAILABLE and session.token_bytes * SIZE == PAGE_BYTES
        with pytest.raises(Failed, match=r"it is asked again in 1 s$") as failed:
            session.push(pages())
        assert failed.value.status == UNAVAILABLE
        daemon.start()
        # The pause ends by itself.
        while True:
            try:
                assert session.push(pages()) == [0] * 8
                break
            except Failed as error:
                assert "asked again" in str(error)
                threading.Event().wait(0.05)


def test_a_daemon_that_does_not_answer_costs_one_timeout(library, daemon, options):
    options.timeout_ms = 200
    made = pages()
    with library.session(options) as session:
        with daemon.stopped():
            with pytest.raises(Failed, match="no answer to push") as failed:
                session.push(made)
            assert failed.value.status == UNAVAILABLE
            with pytest.raises(Failed, match="asked again"):
                session.lookup([key for key, *_ in made])


def test_a_forked_process_has_a_connection_of_its_own(library, options):
    made = pages()
    keys = [key for key, *_ in made]
    with library.session(options) as session:
        session.push(made)
        child = os.fork()
        if not child:
            try:
                session.lookup(keys)
                session.close()
                os._exit(0 if library.session(options).lookup(keys)[0] == 8 else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        # Its end took nothing from here.
        assert collected(session, keys)[1] == [0] * 8


def test_threads_share_a_session(library, options):
    made = pages()
    failures = []
    with library.session(options) as session:

        def work():
            try:
                for _ in range(20):
                    session.push(made)
                    back, outcomes = collected(session, [key for key, *_ in made])
                    assert outcomes == [0] * 8 and (back == np.stack([page.view(np.uint8) for *_, page in made])).all()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_streams_are_cut_and_pages_dropped(library, daemon, options):
    made = pages()
    keys = [key for key, *_ in made]
    with library.session(options) as session:
        session.push(made)
        session.truncate(4 * SIZE)
        with daemon.connect() as client:
            assert [s["tokens"] for s in client.status()["sessions"]] == [4 * SIZE]
        session.with_keys("kvtc_prefetch", keys)
        session.with_keys("kvtc_drop", [])
        assert session.lookup(keys)[0] == 8
        session.with_keys("kvtc_drop", keys[2:])
        assert session.lookup(keys)[0] == 2


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("size", 8, r"options.size: 8, where this library has \d+"),
        ("identity_bytes", 15, "options.identity: 15 bytes; 16 to 64"),
        ("identity", None, "options.identity: 0 bytes; 16 to 64"),
        ("tensor_count", 0, "options.tensors: none, and no profile"),
        ("element", 9, "options.element: 9 has no meaning"),
        ("order", 3, "options.order: 3 has no meaning"),
        ("grouping", 3, "options.grouping: 3 has no meaning"),
        ("rope_frequency_count", 3, "options.rope_frequencies: 3, where RoPE turns 8 pairs of a head of layer 0"),
        ("timeout_ms", 0, "options.timeout_ms: 0; at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_is_sent(library, options, field, value, says):
    setattr(options, field, value)
    with pytest.raises(Failed, match=f"^{says}") as failed:
        library.session(options)
    assert failed.value.status == INVALID


@pytest.mark.parametrize(("field", "value"), [("mode", 0), ("mode", 255), ("quality_kind", 255)])
def test_policies_that_mean_nothing_are_refused(library, options, field, value):
    setattr(options.policy, field, value)
    with pytest.raises(Failed, match=f"^policy.{field}: {value} ") as failed:
        library.session(options)
    assert failed.value.status == INVALID


def test_what_the_daemon_refuses_is_said_with_its_field(library, options):
    options.page_tokens = 8
    with pytest.raises(Failed, match="pageTokens") as failed:
        library.session(options)
    assert failed.value.status == REFUSED
    options.page_tokens = SIZE
    with library.session(options) as session:
        key, _, _, page = pages(1)[0]
        with pytest.raises(Failed, match="tokens"):
            session.push([(key, 0, 0, page)])
        # The session goes on.
        assert session.push(pages()) == [0] * 8
        policy = c_policy(kvtc.Policy())
        policy.quality = -1
        options.policy = policy
    with pytest.raises(Failed, match=r"policy\.quality"):
        library.session(options)


def test_nothing_but_the_interface_is_visible(library):
    listed = subprocess.run(["nm", "-D", "--defined-only", "--extern-only", library.c._name], capture_output=True, text=True, check=True)
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert names == set(re.findall(r"\b(kvtc_\w+)\(", re.sub("//.*", "", (HEADER / "kvtc.h").read_text())))


@pytest.mark.parametrize("language", ["-xc", "-xc++"])
def test_the_header_is_c_and_cpp(language):
    command = ["cc", language, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-include", str(HEADER / "kvtc.h"), os.devnull]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr


def test_the_example_runs_with_what_is_installed(library, daemon, tmp_path):
    root = tmp_path / "root"
    programs = {"KVTCD": binary("kvtcd", "KVTCD"), "KVTCCTL": binary("kvtcctl", "KVTCCTL"), "KVTC_LIBRARY": library.c._name}
    subprocess.run([ROOT / "deploy" / "install", "--root", root], check=True, env=os.environ | programs, capture_output=True)
    environment = os.environ | {"PKG_CONFIG_SYSROOT_DIR": str(root), "PKG_CONFIG_PATH": str(root / "usr/lib/pkgconfig")}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "kvtc"], capture_output=True, text=True, check=True, env=environment)
    program = tmp_path / "engine"
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-o", program, ROOT / "Sources" / "Examples" / "engine.c", *flags.stdout.split()]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    environment = os.environ | {"LD_LIBRARY_PATH": str(root / "usr/lib"), "KVTC_SOCKET": daemon.socket}
    says = [subprocess.run([program], capture_output=True, text=True, env=environment, timeout=60).stdout for _ in range(2)]
    assert says == ["0 pages restored, 8 computed, 8 stored\n", "8 pages restored, 0 computed, 0 stored\n"]
    alone = subprocess.run([program], capture_output=True, text=True, env=environment | {"KVTC_SOCKET": str(tmp_path / "none")}, timeout=60)
    assert (alone.returncode, alone.stdout) == (0, "0 pages restored, 8 computed, 0 stored\n")
    assert alone.stderr.startswith("no kvtcd answers on ")
    subprocess.run([ROOT / "deploy" / "install", "--uninstall", "--root", root], check=True, env=os.environ | programs, capture_output=True)
    assert not [path for path in root.rglob("*kvtc*") if path.is_file() and "etc" not in path.parts]
