"""Checks of what an operator does to a daemon that runs, and of what the service manager and the journal know of it."""

import json
import time
from pathlib import Path

from systemd_machine import Machine, with_drop_in


def _journal(machine: Machine, *options: str) -> list[dict[str, str]]:
    """Entries of the daemon's journal with all fields."""
    text = machine.run("journalctl", "--no-pager", "--output=json", "--unit=kvtcd.service", *options)
    return [json.loads(line) for line in text.splitlines()]


def _await_entry(machine: Machine, message: str, field: str, value: str) -> dict[str, str]:
    """The last entry with that message, once its field has that value: what a reload does is done beside everything else."""
    deadline = time.monotonic() + 30
    while True:
        machine.run("journalctl", "--sync")
        entries = _journal(machine, f"--grep={message}", "--lines=1")
        if entries and value in entries[0].get(field, ""):
            return entries[0]
        if time.monotonic() > deadline:
            raise RuntimeError(f"no entry {message!r} with {field} = {value!r}, but {entries}")
        time.sleep(0.1)


def reload_takes_over(machine: Machine) -> bool:
    """A reload takes over what it can and names the rest; one with a bad file fails, and neither starts the daemon anew."""
    with_drop_in(machine, "")
    process = machine.show("kvtcd.service", "MainPID", "NRestarts")
    configuration = Path(machine.root + "/etc/kvtcd/kvtcd.toml")
    good = configuration.read_text()

    def reload(key: str, value: str, after: str) -> bool:
        configuration.write_text(good.replace(f"\n{key} = {value}\n", f"\n{key} = {after}\n"))
        return machine.succeeds("systemctl", "reload", "kvtcd.service")

    taken = reload("keys", "1048576", "4711")
    _await_entry(machine, "configuration read anew", "KVTCD_CHANGED", "limits.keys = 4711")
    named = reload("threads", "0", "3")
    _await_entry(machine, "settings wait for a restart", "KVTCD_WANTED", "workers.threads = 3")
    refused = not reload("keys", "1048576", "-1")
    _await_entry(machine, "limits.keys = -1", "MESSAGE", "out of range")
    configuration.write_text(good)
    return taken and named and refused and machine.show("kvtcd.service", "MainPID", "NRestarts") == process


def journal_has_fields(machine: Machine) -> bool:
    """Entries can be searched by what they are about, and the catalog explains those that something must be done about."""
    machine.worker("push")
    machine.run("journalctl", "--sync")
    (opened, *_) = _journal(machine, "--grep=session opened", "--reverse")
    session = opened["KVTCD_SESSION"]
    found = {entry["MESSAGE"].split()[1] for entry in _journal(machine, f"KVTCD_SESSION={session}")} == {"opened", "closed"}
    profile = Path(machine.root + "/var/lib/kvtcd/profiles/bad.safetensors")
    profile.write_text("no profile")
    machine.run("systemctl", "reload", "kvtcd.service")
    left_out = _await_entry(machine, "profile left out", "KVTCD_FILE", profile.name)
    profile.unlink()
    explained = machine.run("journalctl", "--no-pager", "--catalog", f"MESSAGE_ID={left_out['MESSAGE_ID']}", "--lines=1")
    return (
        opened["PRIORITY"] == "6" and opened["KVTCD_TENANT"] == "0" and found and left_out["PRIORITY"] == "4"
        and left_out["KVTCD_ERROR_CODE"] == "unknownProfile" and "kvtcd cannot use a profile" in explained
        and "bad.safetensors is no good" in explained
    )


def units_are_tight(machine: Machine) -> bool:
    """The daemon's exposure is 0.8 at most, as systemd counts it, and its units have nothing to complain of."""
    units = ["kvtcd.service", "kvtcd.socket", "kvtcd.slice", "kvtcd-monitor.service", "kvtcd@second.service", "kvtcd@second.socket"]
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=8", "kvtcd.service")
    return machine.run("sh", "-c", f"systemd-analyze verify --man=no {' '.join(f'/lib/systemd/system/{unit}' for unit in units)} 2>&1") == ""


def stop_takes_the_time_that_it_needs(machine: Machine) -> bool:
    """A stop that writes for longer than both the watchdog and the stop may take is given the time, as it gets on."""
    with_drop_in(machine, "[Service]\nWatchdogSec=1s\nTimeoutStopSec=1s\n")
    machine.run("kvtcctl", "drop", "--all")
    machine.worker("push", pages=16)
    process = machine.show("kvtcd.service", "MainPID")["MainPID"]
    slow = machine.start(
        "run", "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=200ms", "-p", process
    )
    while "TracerPid:\t0\n" in machine.run("cat", f"/proc/{process}/status"):
        time.sleep(0.02)
    begin = time.monotonic()
    machine.run("systemctl", "stop", "kvtcd.service")
    seconds = time.monotonic() - begin
    slow.wait()
    state = machine.show("kvtcd.service", "ActiveState", "Result", "ExecMainStatus")
    ended = state == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    return ended and seconds > 2 and machine.worker("pull", pages=16)["identical"]


def two_daemons(machine: Machine) -> bool:
    """A second daemon has what is its own: configuration, socket, directory and pages; a restart of it leaves the first alone."""
    other = "/run/kvtcd-second/kvtcd.sock"
    Path(machine.root + "/etc/kvtcd/second.toml").write_text('ram.budget = "64MiB"\ndisk.budget = "256MiB"\n')
    machine.run("systemctl", "start", "kvtcd@second.socket")
    machine.worker("push", pages=8)
    before = machine.status()
    first = machine.worker("push", pages=16, socket=other)["identical"]
    machine.run("systemctl", "restart", "kvtcd@second.service")
    second, after = machine.status(other), machine.status()
    machine.run("systemctl", "stop", "kvtcd@second.socket", "kvtcd@second.service")
    apart = second["tiers"]["ram"]["budget"] == 64 << 20 and second["tiers"]["ram"]["pages"] == 16
    directories = [Path(machine.root + f"/var/lib/{name}/lock").exists() for name in ("kvtcd", "kvtcd-second")]
    same = ("instance", "tiers")
    return first and apart and all(directories) and {key: before[key] for key in same} == {key: after[key] for key in same}


def pages_are_shared(machine: Machine) -> bool:
    """With the drop-in that is shipped for it, the daemon has the network that sharing takes, and its unit stays tight."""
    configuration = Path(machine.root + "/etc/kvtcd/kvtcd.toml")
    good = configuration.read_text()
    configuration.write_text(good.replace('\nurl = ""\n', '\nurl = "redis://127.0.0.1:7379"\n').replace(
        '\nsecret_file = ""\n', '\nsecret_file = "/etc/kvtcd/fleet-secret"\n').replace('\nwrite = "idle"\n', '\nwrite = "always"\n'))  # fmt: skip
    machine.run("sh", "-c", "umask 027; openssl rand -hex 32 > /etc/kvtcd/fleet-secret; chgrp kvtcd /etc/kvtcd/fleet-secret")
    # The server of Debian's redis-tools, by the name under which it serves.
    server = "exec -a redis-server redis-check-rdb --port 7379 --bind 127.0.0.1 --save '' --dir /tmp"
    machine.run("systemd-run", "--unit=redis-check", "bash", "-c", server)
    with_drop_in(machine, Path(machine.root + "/usr/share/kvtcd/fleet.conf").read_text())
    try:
        machine.run("kvtcctl", "drop", "--all")
        pushed = machine.worker("push")["identical"]
        deadline = time.monotonic() + 30
        while machine.status()["shared"]["written_pages"] < 32 and time.monotonic() < deadline:
            time.sleep(0.1)
        machine.run("systemd-analyze", "security", "--no-pager", "--threshold=14", "kvtcd.service")
        return pushed and machine.status()["shared"]["written_pages"] >= 32
    finally:
        configuration.write_text(good)
        machine.run("systemctl", "stop", "redis-check")
        with_drop_in(machine, "")


OPERATION_CHECKS = [
    reload_takes_over, journal_has_fields, stop_takes_the_time_that_it_needs, two_daemons, pages_are_shared, units_are_tight
]  # fmt: skip
