"""What kvtcctl shows people: names from outside as text only, columns that fit, in any locale and on any terminal."""

import json
import os
import pty
import re
import subprocess
import unicodedata

import pytest

from kvtc.protocol import messages

from conftest import binary
from samples import open_session, random_pages, to_push
from synthetic import calibrate

FORGED = "\x1b]0;owned\x07\x1b[2Jgone\n  7  forged row"
HOSTILE = [
    FORGED,
    "a\r  1  root",
    "c1 \x9b31m\x9d0;x\x9c",
    "turn \u202eedoc\u202c \u2066x\u2069",
    "tab\tand\x0bvertical\x0cfeed\x08\x08\x7f",
    "lines \u2028 \u2029 \u0085",
    "invisible \u200b\u200d\ufeff\u00ad\u3164 \U000e0041",
    "\u0301 alone",
    "private \ue000 unassigned \u0378",
    "back\\slash \\u{1b}",
    "a pile o" + "\u0301" * 60,
]
WIDE = ["漢字かな交じり", "emoji 🦀🚀", "e\u0301e\u0301 combining", "한국어", "ｆｕｌｌ", "Ελληνικά"]


@pytest.fixture
def kvtcctl(daemon):
    """Runs it with nothing of this process's own terminal or locale."""

    def run(*arguments, status=0, **variables):
        environment = {"PATH": os.environ["PATH"], "KVTC_SOCKET": daemon.socket, "LC_ALL": "C.UTF-8"} | variables
        command = [binary("kvtcctl", "KVTCCTL"), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=60)
        assert result.returncode == status, result.stderr
        return result.stdout if status == 0 else result.stderr

    return run


def cells(text):
    """Cells that it takes in a terminal, by the Unicode database of another program."""
    return sum(
        0 if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def test_no_name_steers_the_terminal_or_forges_a_row(client, kvtcctl):
    sessions = [open_session(client, name) for name in HOSTILE]
    for command in ("sessions", "status"):
        text = kvtcctl(command)
        for character in text:
            assert character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"), repr(character)
        assert "\u0301" * 5 not in text
        assert not re.search(r"^ *7  forged row", text, re.M) and "\\u{1b}]0;owned\\u{7}" in text
    rows = kvtcctl("sessions").splitlines()[1:]
    assert len(rows) == len(HOSTILE)
    # As JSON the names are what they were, without a character that would do something.
    document = kvtcctl("sessions", "--json")
    assert sorted(row["name"] for row in json.loads(document)) == sorted(HOSTILE)
    for text in (document, kvtcctl("status", "--json"), client._call(messages.Status(), messages.JsonReply).json):
        assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in text.rstrip("\n"))
    del sessions


def test_columns_fit_wide_characters(client, kvtcctl):
    sessions = [open_session(client, name) for name in WIDE]
    header, *rows = kvtcctl("sessions").splitlines()
    column = header.index("UID")
    assert len(rows) == len(WIDE)
    for name in WIDE:
        (row,) = (row for row in rows if name in row)
        before = row[: row.index(name) + len(name)]
        # The user id ends where the header's column does.
        rest = row[len(before) :]
        uid = re.match(r" *\d+", rest)[0]
        assert cells(before + uid) == column + len("UID"), row
    del sessions


def test_everything_fits_eighty_columns(client, kvtcctl, tmp_path):
    profile = calibrate(tmp_path, "--model", "a model with a long name, 漢字 \x1b[2J " * 4).rename(tmp_path / ("m" * 90 + ".safetensors"))
    client.load_profile(profile)
    sessions = [open_session(client, name) for name in (*HOSTILE, *WIDE, "a long name " * 20)]
    keys, contents = random_pages(5)
    sessions[0].push(to_push(keys, contents))
    kvtcctl("policy", "get", 99, status=1)
    for columns in (80, 100, 132):
        for command in (["status"], ["sessions"], ["policy", "get", sessions[0].number], ["profile", "list"], ["ping"], ["profile", "show", profile]):
            for line in kvtcctl(*command, COLUMNS=str(columns)).splitlines():
                assert cells(line) <= columns, (columns, cells(line), line)
    wide = kvtcctl("sessions", COLUMNS="400").splitlines()[0]
    for title in ("SESSION", "NAME", "UID", "MODE", "SINK", "WINDOW", "TOKENS", "PAGES", "RAW", "OUTLIERS", "DRIFT", "PRIO", "TTL", "IDLE"):
        assert title in wide
    narrow = kvtcctl("sessions", COLUMNS="80").splitlines()[0]
    for title in ("SESSION", "NAME", "UID", "MODE", "TOKENS", "PAGES", "IDLE"):
        assert title in narrow


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "", "LANG": "C"}, {"LC_ALL": "", "LANG": ""}])
def test_a_locale_without_unicode_gets_ascii(client, kvtcctl, locale):
    session = open_session(client, "naïve 漢")
    for command in (["status"], ["sessions"], ["policy", "get", session.number], ["profile", "list"]):
        text = kvtcctl(*command, **locale)
        assert text.isascii(), text
    assert "na\\u{ef}ve \\u{6f22}" in kvtcctl("sessions", **locale) and "..." in kvtcctl("status", **locale)
    assert "naïve 漢" in kvtcctl("sessions") and "░" in kvtcctl("status")


def on_a_terminal(daemon, *arguments, **variables):
    """What it writes to a terminal of 80 columns."""
    parent, child = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "KVTC_SOCKET": daemon.socket, "LC_ALL": "C.UTF-8", "TERM": "xterm"} | variables
    command = [binary("kvtcctl", "KVTCCTL"), *arguments]
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        seen = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
    os.close(parent)
    assert process.returncode == 0, seen
    return seen.decode()


def test_bold_only_where_it_is_wanted(daemon, client):
    session = open_session(client, "x" * 200)
    assert "\x1b[1m" in on_a_terminal(daemon, "status")
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}):
        assert "\x1b" not in on_a_terminal(daemon, "status", **variables)
    plain = re.sub(r"\x1b\[[0-9]*m", "", on_a_terminal(daemon, "status"))
    assert max(cells(line) for line in plain.splitlines()) <= 80
    del session


def test_numbers_are_as_they_were_given(client, kvtcctl):
    session = open_session(client)
    for given in ("0.01", "0.1", "0.3", "0.0007"):
        kvtcctl("policy", "set", session.number, "--distortion", given)
        assert f"distortion {given} (" in kvtcctl("policy", "get", session.number)
        for command in (["policy", "get", session.number, "--json"], ["sessions", "--json"], ["status", "--json"]):
            assert f'"quality":{given},' in kvtcctl(*command)
    kvtcctl("policy", "set", session.number, "--ratio", 16)
    assert "quality    ratio 16 (" in kvtcctl("policy", "get", session.number)


WRONG = [
    (["policy", "set", 1, "--ratio", "-1"], "--ratio", "1 to 1000"),
    (["policy", "set", 1, "--ratio", "nan"], "--ratio", "1 to 1000"),
    (["policy", "set", 1, "--window", "-5"], "--window", "from 0 to 4294967295"),
    (["policy", "set", 1, "--sink", "many"], "--sink", "from 0 to 4294967295"),
    (["policy", "set", 1, "--ttl", "-5"], "--ttl", "number of seconds"),
    (["policy", "set", 1, "--priority", "256"], "--priority", "0 to 255"),
    (["policy", "set", 1, "--distortion", "-0.5"], "--distortion", "above 0 and below 1"),
    (["policy", "set", 1, "--limit", "-1"], "--limit", "'off'"),
    (["policy", "set", 1, "--near", "2"], "--near", "'off'"),
    (["policy", "set", 1, "--protect", "-3-5"], "--protect", "BEGIN-END"),
    (["policy", "set", 1, "--protect", "9-5"], "--protect", "BEGIN below END"),
    (["policy", "set", 1, "--mode", "-1"], "--mode", "lossless"),
    (["flush", "--session", "-1"], "--session", "kvtcctl sessions"),
    (["drop", "--session", "x"], "--session", "kvtcctl sessions"),
    (["ping", "--count", "-1"], "--count", "1 to 1000000"),
    (["ping", "--size", "-1"], "--size", "0 to 1048576"),
    (["status", "--watch", "-1"], "--watch", "seconds"),
    (["status", "--timeout", "-1"], "--timeout", "1 to 86400"),
    (["status", "--socket", ""], "--socket", "empty"),
    (["status", "--socket", "/" + "x" * 200], "--socket", "107"),
    (["bench", "--pages", "-1"], "--pages", "1 to 1024"),
    (["bench", "--ratio", "-1"], "--ratio", "1 to 1000"),
    (["policy", "set", 1, "--pin", "--no-pin"], "--no-pin", "--pin"),
    (["policy", "set", 1, "--keep-outliers", "--no-keep-outliers"], "--no-keep-outliers", "--keep-outliers"),
    (["calibrate", "x", "--out", "y", "--rank", "-1"], "--rank", "from 1"),
    (["plan", "x", "--token-bytes", "-1"], "--token-bytes", "KiB"),
    (["plan", "x", "--token-bytes", 9, "--ram", "1XB"], "--ram", "no unit XB"),
    (["plan", "x", "--token-bytes", 9, "--ram", "2PiB"], "--ram", "no unit PiB"),
    (["plan", "x", "--token-bytes", 9, "--disk", "-1"], "--disk", "GiB"),
    (["plan", "x", "--token-bytes", 9, "--ratio", "0"], "--ratio", "1 to 1000"),
    (["plan", "x", "--token-bytes", 9, "--block-tokens", 0], "--block-tokens", "1 to 65536"),
    (["plan", "x", "--token-bytes", 9, "--restore", "16"], "--restore", "16=600"),
    (["plan", "x", "--token-bytes", 9, "--gpu-tflops", "500"], "--gpu-tflops", "--parameters"),
    (["plan", "x", "--layers", 32], "--kv-heads", "--model"),
    (["plan", "x", "--token-bytes", 9, "--element", "int3"], "--element", "bf16"),
    (["plan", "x", "--token-bytes", 9, "--nodes", 2], "--nodes", "--prefill-tokens-per-second"),
    (["plan", "x", "--token-bytes", 9, "--nodes", "2,0"], "--nodes", "1 to 10000"),
    (["plan", "x", "--token-bytes", 9, "--nodes", "2,"], "--nodes", "1 to 10000"),
    (["plan", "x", "--token-bytes", 9, "--network", "25gbe"], "--network", "--nodes"),
    (["plan", "x", "--token-bytes", 9, "--nodes", 2, "--network", "25"], "--network", "25gbe"),
    (["plan", "x", "--token-bytes", 9, "--nodes", 2, "--router", "sticky=2"], "--router", "0 to 1"),
    (["plan", "x", "--token-bytes", 9, "--nodes", 2, "--router", "best"], "--router", "least-loaded"),
    (["plan", "x", "--token-bytes", 9, "--nodes", 2, "--shared-budget", "1XB"], "--shared-budget", "no unit XB"),
    (["plan", "x", "--token-bytes", 9, "--nodes", 2, "--prefill-tokens-per-second", 9, "--gpu-memory", "1GiB"], "--gpu-memory", "leave out"),
    (["plan", "x", "--token-bytes", 9, "--nodes", 2, "--prefill-tokens-per-second", 9, "--ram", "1GiB", "--ram", "2GiB"], "--ram", "once"),
]


@pytest.mark.parametrize("arguments, option, allowed", WRONG, ids=[" ".join(map(str, case[0][-2:]))[:24] for case in WRONG])
def test_a_bad_value_is_told_what_is_allowed(kvtcctl, arguments, option, allowed):
    message = kvtcctl(*arguments, status=64)
    assert option in message and allowed in message and "Missing value" not in message, message


def test_spans_of_time_read_the_same_everywhere(client, kvtcctl):
    session = open_session(client)
    for seconds, text in [(59, "59 s"), (90, "1 min 30 s"), (86_400, "1 d 0 h"), (365 * 86_400, "1 year"), (4_000_000_000, "126 years")]:
        kvtcctl("policy", "set", session.number, "--ttl", seconds)
        assert re.search(rf"^ttl +{text}$", kvtcctl("policy", "get", session.number), re.M)
        assert f" {text} " in kvtcctl("sessions")


def test_a_directory_is_named_without_a_path_that_is_none(daemon):
    command = [binary("kvtcctl", "KVTCCTL"), "profile", "load", "nope"]
    result = subprocess.run(command, capture_output=True, text=True, cwd="/", env={"KVTC_SOCKET": daemon.socket}, timeout=60)
    assert result.returncode == 1 and "/ has no file nope" in result.stderr and "//" not in result.stderr


def test_what_the_daemon_refuses_of_a_policy_is_named_as_the_options_are(client, kvtcctl):
    session = open_session(client)
    for option, value in [("window", 2**31), ("sink", 2**31), ("mode", "transform"), ("near", 0.01), ("limit", 0.01)]:
        message = kvtcctl("policy", "set", session.number, f"--{option}", value, status=1)
        assert message.startswith(f"kvtcctl: --{option}: ") and "policy." not in message, message
