"""Two machines of a fleet on a real server: pages and profiles travel, ``kvtcctl shared`` asks and clears the server."""

import base64
import json
import os
import subprocess

import pytest

import kvtc
from kvtc import ErrorCode

from conftest import ROOT, Daemon, await_end, binary
from samples import open_session, random_pages, to_push, until
from users import NOBODY, as_user

# Debian's redis-tools has the server under the name of a tool, and redis-server would start one for the whole machine.
SERVER = "/usr/bin/redis-check-rdb"
KEYS, CONTENTS = random_pages(12)
PROFILE = base64.b64decode(json.loads((ROOT / "Tests/Golden/blocks-4.json").read_text())["profile"])
POLICY = kvtc.Policy(mode=kvtc.Mode.QUANT4, sink=0, window=0)


class Server:
    def __init__(self, directory):
        self.socket = str(directory / "redis")
        program = directory / "redis-server"
        program.symlink_to(SERVER)
        command = [str(program), "--port", "0", "--unixsocket", self.socket, "--dir", str(directory), "--save", ""]
        command += ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: os.path.exists(self.socket))

    def close(self):
        self.process.kill()
        await_end(self.process, 60)


@pytest.fixture(scope="module")
def fleet():
    """Two machines and their server; one has a profile."""
    if not os.path.exists(SERVER):
        pytest.fail("redis-tools is missing: deploy/setup")
    one, other = Daemon(**{"socket.mode": "0666"}), Daemon()
    os.chmod(one.directory, 0o755)
    secret = one.directory / "secret"
    secret.write_text("ab" * 32 + "\n")
    server = Server(one.directory)
    for daemon in (one, other):
        daemon.settings |= {
            "shared.url": f"unix://{server.socket}", "shared.secret_file": str(secret), "shared.write": "always",
            "shared.encryption": "aes-gcm", "shared.absent_s": 0, "shared.lookup_ms": 1000, "shared.pull_ms": 10_000,
        }  # fmt: skip
    profiles = one.directory / "state" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "small.kvtc.safetensors").write_bytes(PROFILE)
    yield one.start(), other.start(), server
    one.close()
    other.close()
    server.close()


def kvtcctl(daemon, *arguments, status=0):
    command = [binary("kvtcctl", "KVTCCTL"), "shared", *arguments]
    environment = {"PATH": os.environ["PATH"], "KVTC_SOCKET": daemon.socket, "LC_ALL": "C.UTF-8", "COLUMNS": "80"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert result.returncode == status, result.stderr + result.stdout
    return result.stdout if status == 0 else result.stderr


def test_a_conversation_and_its_profile_go_on_at_another_machine(fleet):
    one, other, _ = fleet
    with one.connect() as client, open_session(client, policy=POLICY) as session:
        session.push(to_push(KEYS, CONTENTS))
        until(lambda: client.status()["shared"]["written_pages"] == len(KEYS))
        here = session.fetch(KEYS)
    with other.connect() as client, open_session(client, policy=POLICY) as session:
        assert set(session.lookup(KEYS).residence) == {kvtc.Residence.SHARED}
        assert session.fetch(KEYS) == here
        assert set(session.lookup(KEYS).residence) == {kvtc.Residence.CODED}
        # The profile comes with the first round, or the one after.
        until(client.profiles)
        assert [profile["file"] for profile in client.profiles()] == ["small.kvtc.safetensors"]
    assert (other.directory / "state/profiles/small.kvtc.safetensors").read_bytes() == PROFILE
    other.logged("profile taken from the fleet: small.kvtc.safetensors")


def test_the_servers_are_asked_and_cleared(fleet):
    one, _, server = fleet
    with one.connect() as client, open_session(client, policy=POLICY) as session:
        session.push(to_push(KEYS, CONTENTS))
        until(lambda: client.status()["shared"]["written_pages"] + client.status()["shared"]["known"] >= len(KEYS))
        (answer,) = json.loads(kvtcctl(one, "ping", "--json"))["servers"]
        assert set(answer) == {"address", "us", "fault"} and answer["us"] > 0 and answer["address"] == server.socket
        (usage,) = client.shared("usage")["servers"]
        assert set(usage) == {"address", "fault", "values", "bytes", "is_estimate", "used_bytes", "max_bytes", "policy"}
        assert usage["values"] >= len(KEYS) and usage["max_bytes"] == 64 << 20 and usage["policy"] == "allkeys-lru"
        text = kvtcctl(one, "usage")
        assert "allkeys-lru" in text and "64.0 MiB" in text and "s" in kvtcctl(one, "ping").splitlines()[1].split()[-1]
        assert "--all" in kvtcctl(one, "drop", status=64)
        assert json.loads(kvtcctl(one, "drop", "--all", "--json"))["removed"] >= len(KEYS)
        # A profile's parts may be written anew at any time.
        assert client.shared("usage")["servers"][0]["values"] <= 2
        with pytest.raises(kvtc.KvtcError) as caught:
            client.shared("ping", "17 somewhere")
        assert caught.value.code == ErrorCode.INVALID_FIELD
    if os.geteuid() == 0:
        assert as_user(NOBODY, lambda: refusal(one)) == ErrorCode.FORBIDDEN


def refusal(daemon):
    """Why a user may not ask."""
    with daemon.connect(arena_bytes=0) as client:
        try:
            client.shared("usage")
        except kvtc.KvtcError as error:
            return int(error.code)
    return 0


def test_a_server_that_is_gone_is_named(fleet):
    one, other, server = fleet
    server.process.kill()
    assert "kvtcctl doctor" in kvtcctl(one, "ping", status=1)
    assert json.loads(kvtcctl_output(other, "ping", "--json"))["servers"][0]["fault"] in ("unreachable", "open")
    assert "did not answer" in kvtcctl(one, "drop", "--all", status=1)
    with other.connect() as client, open_session(client, policy=POLICY) as session:
        assert session.lookup([bytes(32)]).residence == [kvtc.Residence.ABSENT]


def test_without_a_fleet_it_says_how_to_have_one(daemon):
    assert "kvtcd.toml" in kvtcctl(daemon, "ping", status=1)


def kvtcctl_output(daemon, *arguments):
    """Standard output of one that ends with status 1."""
    command = [binary("kvtcctl", "KVTCCTL"), "shared", *arguments, "--socket", daemon.socket]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
