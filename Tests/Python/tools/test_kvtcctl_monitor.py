"""``kvtcctl monitor`` beside the real daemon: figures of real traffic, and what it says when the daemon is gone."""

import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.request

from conftest import binary
from samples import TOKENS, open_session, random_pages, to_push


@contextlib.contextmanager
def monitor(daemon, *arguments):
    """Serves at a free port and yields what gets a path."""
    command = [binary("kvtcctl", "KVTCCTL"), "monitor", "--listen", "127.0.0.1:0", "--socket", daemon.socket, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stderr.readline().split()[-1]
            assert address.startswith("http://127.0.0.1:"), address

            def get(path):
                try:
                    with urllib.request.urlopen(address + path, timeout=60) as reply:
                        return reply.status, reply.read().decode()
                except urllib.error.HTTPError as error:
                    return error.code, error.read().decode()

            yield get
        finally:
            process.terminate()


def samples(text):
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_metrics_are_those_of_the_traffic_and_the_page_needs_nothing_else(daemon, client):
    keys, contents = random_pages(5)
    with open_session(client, "chat of ann") as session, monitor(daemon) as get:
        session.push(to_push(keys, contents))
        session.fetch(keys)
        session.fetch([bytes(32)])
        figures = samples(get("metrics")[1])
        assert figures["kvtcd_up"] == 1 and figures['kvtcd_state{state="ready"}'] == 1
        assert figures["kvtcd_pages_pushed_total"] == 5 and figures["kvtcd_page_hits_total"] == 5
        assert figures['kvtcd_page_misses_total{reason="absent"}'] == 1
        assert figures["kvtcd_received_bytes_total"] == sum(len(content) for content in contents)
        assert figures['kvtcd_operation_duration_seconds_bucket{operation="push",le="+Inf"}'] >= 1
        assert get("healthz") == (200, "ok\n") and get("readyz") == (200, "ok\n")
        document = json.loads(get("status.json")[1])
        assert [(one["name"], one["tokens"]) for one in document["sessions"]] == [("", 5 * TOKENS)]
        status, page = get("")
        assert status == 200 and "<!doctype html>" in page and "src=" not in page and "@import" not in page
        with monitor(daemon, "--names") as named:
            assert json.loads(named("status.json")[1])["sessions"][0]["name"] == "chat of ann"
            assert f'kvtcd_tenant_pages{{tenant="{os.getuid()}"}}' in samples(named("metrics")[1])


def test_a_daemon_that_is_gone_is_said_to_be(daemon):
    daemon.stop()
    with monitor(daemon) as get:
        assert samples(get("metrics")[1]) == {"kvtcd_up": 0}
        for path in ("healthz", "readyz", "status.json"):
            status, text = get(path)
            assert status == 503 and daemon.socket in text, text
        daemon.start()
    with monitor(daemon) as get:
        assert get("readyz") == (200, "ok\n")


def test_a_wrong_address_is_refused_before_anything_is_served(daemon):
    for address, reason in (("0.0.0.0:80", "this machine alone"), ("9464", "neither"), ("unix:x", "unix:/PATH")):
        command = [binary("kvtcctl", "KVTCCTL"), "monitor", "--listen", address]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 64 and reason in result.stderr
