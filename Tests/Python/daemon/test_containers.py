"""Containers: where a user's number says nothing a peer is refused, and a socket of its own makes a container a tenant."""

import ctypes
import os
import socket
import subprocess
import sys

import pytest

import kvtc
from kvtc import ErrorCode

from conftest import binary
from samples import open_session, random_pages, to_push
from users import as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces and be several users")

USER = 63001
CLONE_NEWPID = 0x20000000
KEYS, CONTENTS = random_pages(3)


@pytest.fixture
def make_open(make_daemon):
    """Makes daemons that everybody can connect to, under another program if told."""

    def make(prefix=(), **settings):
        daemon = make_daemon(**{"socket.mode": "0666"} | settings)
        daemon.directory.chmod(0o755)
        if prefix:
            daemon.stop()
            daemon.prefix = list(prefix)
            daemon.start()
        return daemon

    return make


def visit(path):
    """What a client may do at a socket: finds and pushes pages; whose sessions it sees; whether it is an administrator."""
    try:
        with kvtc.connect(path, arena_bytes=0) as client:
            session = open_session(client)
            found = session.lookup(KEYS).leading_run
            session.push(to_push(KEYS, CONTENTS))
            try:
                administrator = client.verify().corrupt == 0
            except kvtc.KvtcError as error:
                administrator = error.code != ErrorCode.FORBIDDEN
            return [found, administrator, client.status()["tenant"]]
    except kvtc.KvtcError as error:
        return f"{ErrorCode(error.code).name if error.code else ''}: {error}"


def contained(path, user=0):
    """The same from a process in a process namespace of its own."""

    def enter():
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "unshare")
        # Its next child is the first process there.
        return as_user(user, lambda: visit(path))

    return as_user(0, enter)


def test_users_that_a_user_namespace_does_not_map_are_refused(make_open):
    daemon = make_open(["unshare", "-U", "--map-root-user"])
    for user in (USER, USER + 1, 65534):
        answer = as_user(user, lambda: visit(daemon.socket))
        assert answer.startswith("FORBIDDEN") and "[containers]" in answer, answer
    assert visit(daemon.socket) == [0, True, 0]
    assert visit(daemon.socket)[0] == 3


def test_a_user_namespace_without_a_map_serves_nobody(make_open):
    """There the daemon's own user has the number of all others, and must not make administrators of them."""
    daemon = make_open(["unshare", "-U"])
    for answer in (visit(daemon.socket), as_user(USER, lambda: visit(daemon.socket))):
        assert answer.startswith("FORBIDDEN"), answer


def test_nobody_is_a_user_like_others_outside_of_a_user_namespace(make_open):
    daemon = make_open()
    assert as_user(65534, lambda: visit(daemon.socket)) == [0, False, 65534]
    assert as_user(USER, lambda: visit(daemon.socket)) == [0, False, USER]


def test_an_unmapped_group_makes_no_administrator(make_open):
    """As a group that the namespace does not map shows under 65534, anybody might be in it."""
    daemon = make_open(["unshare", "-U", "--map-root-user"], **{"admin.group": "65534"})
    answer = as_user(0, lambda: visit(daemon.socket))
    assert answer == [0, True, 0]
    assert as_user(USER, lambda: visit(daemon.socket)).startswith("FORBIDDEN")


def test_users_of_another_process_namespace_are_refused(make_open):
    """Root of a container can become any user there, and images agree on the numbers of theirs."""
    daemon = make_open(**{"admin.users": [USER]})
    assert visit(daemon.socket)[1:] == [True, 0]
    assert as_user(USER + 1, lambda: visit(daemon.socket)) == [0, False, USER + 1]
    for user in (0, USER, USER + 1):
        answer = contained(daemon.socket, user)
        assert answer.startswith("FORBIDDEN") and "[containers]" in answer, answer
    assert visit(daemon.socket)[0] == 3


def test_containers_are_tenants_of_their_own(make_open):
    daemon = make_open()
    paths = {name: str(daemon.directory / name / "kvtcd.sock") for name in ("web", "batch")}
    daemon.settings |= {f"containers.{name}": path for name, path in paths.items()}
    daemon.restart()
    first = contained(paths["web"])
    assert first[:2] == [0, False] and first[2] >= 1 << 31
    # Whatever the user is, and from outside as well.
    assert as_user(USER, lambda: visit(paths["web"])) == [3, False, first[2]]
    assert visit(paths["web"]) == [3, False, first[2]]
    other = contained(paths["batch"])
    assert other[:2] == [0, False] and other[2] != first[2]
    assert visit(daemon.socket) == [0, True, 0]
    daemon.restart()
    assert [contained(paths[name])[0] for name in ("web", "batch")] == [3, 3]
    daemon.stop()
    assert not any(os.path.exists(path) for path in paths.values())
    daemon.start()


def test_an_inherited_socket_at_a_containers_path_is_the_containers(make_daemon, tmp_path):
    directory = make_daemon().directory
    common, web = str(directory / "common"), str(directory / "web")
    config = directory / "inherited.toml"
    config.write_text(f'[disk]\ndirectory = "{tmp_path}/state"\n[ram]\nbudget = "16MiB"\n[containers]\nweb = "{web}"\n')
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for listener, path in ((first, common), (second, web)):
            listener.bind(path)
            listener.listen()
        start = f"import os\nos.dup2({first.fileno()}, 203); os.dup2({second.fileno()}, 204)\nos.dup2(203, 3); os.dup2(204, 4)\n"
        start += "os.environ |= {'LISTEN_FDS': '2', 'LISTEN_PID': str(os.getpid())}\n"
        start += f"os.execv({binary('kvtcd', 'KVTCD')!r}, ['kvtcd', '--config', {str(config)!r}])"
        process = subprocess.Popen(
            [sys.executable, "-c", start], pass_fds=[first.fileno(), second.fileno()], stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"},
        )
        try:
            assert visit(common) == [0, True, 0]
            found, administrator, tenant = visit(web)
            assert (found, administrator) == (0, False) and tenant >= 1 << 31
        finally:
            process.terminate()
            assert process.wait(60) == 0
    assert os.path.exists(common) and os.path.exists(web)


def test_users_with_numbers_of_containers_are_refused(make_open):
    daemon = make_open()
    assert as_user((1 << 31) + 5, lambda: visit(daemon.socket)).startswith("FORBIDDEN")
