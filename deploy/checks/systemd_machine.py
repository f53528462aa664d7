"""A throw-away systemd for checks of the units: commands run in it, and a worker beside it."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
VENV = Path(os.environ.get("KVTC_VENV") or f"{CACHE}/kvtc/venv")
SOCKET = "/run/kvtcd/kvtcd.sock"
WORKER_ENVIRONMENT = {"PYTHONPATH": str(ROOT / "Sources/Python"), "PYTHONDONTWRITEBYTECODE": "1"}
# For the checks of the RAM tier: no disk that could help out, and a watchdog that does not take half a minute.
RAM_ONLY = """[Service]
ExecStart=
ExecStart=/usr/bin/kvtcd --config /etc/kvtcd/kvtcd.toml --disk-budget 0
WatchdogSec=3s
"""


class Machine:
    """The throw-away systemd: commands run in it. The worker is a process of it with this machine's files, and reaches its socket
    through /proc: kvtcd takes nobody from another process namespace at that socket."""

    def __init__(self) -> None:
        # A directory of its own, so that two runs on one machine do not meet. `up` wants to make it itself.
        self.directory = tempfile.mkdtemp(prefix="kvtc-systemd-")
        os.rmdir(self.directory)
        # Room for the disk budget of the configuration as shipped; memory is taken only for what is written.
        self.environment = {"KVTC_SYSTEMD_SIZE": "16g"} | os.environ | {"KVTC_SYSTEMD_DIR": self.directory}
        self.script = str(ROOT / "deploy/checks/real-systemd")

    def up(self) -> None:
        subprocess.run([self.script, "up"], check=True, env=self.environment)
        root = subprocess.run([self.script, "root"], check=True, env=self.environment, stdout=subprocess.PIPE, text=True)
        self.root = root.stdout.strip()

    def down(self) -> None:
        if os.path.isdir(self.directory):
            subprocess.run([self.script, "down"], check=True, env=self.environment)

    def run(self, *command: str, check: bool = True, pass_fds: Sequence[int] = ()) -> str:
        result = subprocess.run(
            [self.script, "run", *command], env=self.environment, capture_output=True, text=True, pass_fds=pass_fds
        )
        if check and result.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {result.returncode}: {result.stderr.strip()}")
        return result.stdout.strip()

    def succeeds(self, *command: str) -> bool:
        return subprocess.run([self.script, "run", *command], env=self.environment, capture_output=True).returncode == 0

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Starts a command of deploy/checks/real-systemd and does not wait for it."""
        return subprocess.Popen([self.script, *command], env=self.environment, stdout=subprocess.DEVNULL)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        lines = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def worker_command(self, action: str, pages: int, socket: str = SOCKET) -> list[str]:
        command = [self.script, "beside", str(VENV / "bin/python"), str(ROOT / "deploy/checks/systemd-worker.py"), action]
        return command + ["--socket", self.root + socket, "--pages", str(pages)]

    def worker(self, action: str, pages: int = 64, socket: str = SOCKET) -> dict:
        command = self.worker_command(action, pages, socket)
        environment = self.environment | WORKER_ENVIRONMENT
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not result.stdout:
            raise RuntimeError(f"worker {action}: {result.stderr.strip()}")
        return json.loads(result.stdout)

    def load(self, pages: int, at: dict[int, Callable[[], None]], stepwise: bool = False) -> dict:
        """A worker under load. Once so many pages have been acknowledged, the actions happen; the worker just goes on, or `stepwise`
        when they have."""
        environment = self.environment | WORKER_ENVIRONMENT
        command = [*self.worker_command("load", pages), *(["--stepwise"] if stepwise else [])]
        worker = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with worker:
            for line in worker.stdout:
                if line.startswith("{"):
                    return json.loads(line)
                if action := at.get(int(line)):
                    action()
                if stepwise:
                    worker.stdin.write("\n")
                    worker.stdin.flush()
        raise RuntimeError(f"the worker ended with {worker.returncode}")

    def status(self, socket: str = SOCKET) -> dict:
        return json.loads(self.run("kvtcctl", "status", "--json", "--socket", socket))


def with_drop_in(machine: Machine, text: str) -> None:
    """Stops the service, which empties its RAM, and starts it with other settings of its unit."""
    drop_in = Path(machine.root + "/etc/systemd/system/kvtcd.service.d/check.conf")
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(text)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", "kvtcd.service")
    # One that is not loaded has not failed.
    machine.run("systemctl", "reset-failed", "kvtcd.service", check=False)
    machine.run("systemctl", "start", "kvtcd.service")


def without_disk(machine: Machine) -> None:
    """Restarts the service, empty, with nothing but RAM."""
    with_drop_in(machine, RAM_ONLY)
    if machine.status()["tiers"]["ram"]["pages"]:
        raise RuntimeError("a stop and a start must have emptied the RAM tier")
