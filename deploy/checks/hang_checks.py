"""Checks of the watchdog: whatever of the daemon hangs, it is ended, started again and has its pages."""

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress

from systemd_machine import ROOT, VENV, Machine, with_drop_in

WATCHDOG = "[Service]\nWatchdogSec=3s\n"
# Its standard error is a pipe that the check fills.
INTO_A_PIPE = WATCHDOG + """ExecStart=
ExecStart=/bin/sh -c 'exec /usr/bin/kvtcd --config /etc/kvtcd/kvtcd.toml 2<>/run/kvtcd-log'
"""


def _begin(machine: Machine, drop_in: str) -> str:
    """Starts a daemon and has it take pages; its process."""
    with_drop_in(machine, drop_in)
    if not machine.worker("push")["identical"]:
        raise RuntimeError("pages were not stored")
    return machine.show("kvtcd.service", "MainPID")["MainPID"]


def _await(machine: Machine, what: str, condition: Callable[[dict[str, str]], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition(state := machine.show("kvtcd.service", "MainPID", "ActiveState", "StatusText")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: {state}")
        time.sleep(0.05)


def _await_end(machine: Machine, reason: str) -> None:
    """Waits until the daemon has said what hangs, and then until the watchdog has ended it."""
    _await(machine, f"it did not say: {reason}", lambda state: state["StatusText"].startswith(reason))
    _await(machine, "it was not ended", lambda state: state["ActiveState"] != "active")


def _is_replaced(machine: Machine, process: str) -> bool:
    _await(machine, "it was not replaced", lambda state: state["ActiveState"] == "active" and state["MainPID"] != process)
    journal = machine.run("journalctl", "--no-pager", "--unit=kvtcd.service", "--since=-2min")
    return "Watchdog timeout" in journal and machine.worker("pull")["identical"]


def watchdog_ends_a_hung_engine(machine: Machine) -> bool:
    """The threads that compute are stopped."""
    process = _begin(machine, WATCHDOG)
    names = machine.run("sh", "-c", f"grep -l ^kvtc-work /proc/{process}/task/*/comm").split()
    script = [str(VENV / "bin/python"), str(ROOT / "deploy/checks/stop-threads.py")]
    stopper = machine.start("beside", *script, *(name.split("/")[4] for name in names))
    try:
        _await_end(machine, "no request could be served")
        return _is_replaced(machine, process)
    finally:
        stopper.terminate()
        stopper.wait()


def watchdog_ends_a_hung_log(machine: Machine) -> bool:
    """A log whose pipe is full and that nobody reads, with no line to write."""
    pipe = machine.root + "/run/kvtcd-log"
    os.mkfifo(pipe)
    os.chmod(pipe, 0o666)
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        process = _begin(machine, INTO_A_PIPE)
        with suppress(BlockingIOError):
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
            while True:
                os.write(end, b"x" * 512)
        _await_end(machine, "the log takes no line")
        with suppress(BlockingIOError):
            while True:
                os.read(end, 65536)
        return _is_replaced(machine, process)
    finally:
        os.close(end)


def watchdog_ends_a_hung_disk(machine: Machine) -> bool:
    """In the place of the directory there is a file system that nobody answers for, while no client asks for anything."""
    process = _begin(machine, WATCHDOG)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    # Seen by the daemon alone: it goes with it.
    mount = ["nsenter", f"--target={process}", "--mount", "mount", "-i", "-t", "fuse", "-o", options, "nobody", "/var/lib/kvtcd"]
    try:
        machine.run(*mount, pass_fds=[device])
        _await_end(machine, "the disk does not answer")
        return _is_replaced(machine, process)
    finally:
        os.close(device)


HANG_CHECKS = [watchdog_ends_a_hung_engine, watchdog_ends_a_hung_log, watchdog_ends_a_hung_disk]
