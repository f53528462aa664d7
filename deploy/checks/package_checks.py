"""Checks of the Debian packages in a throw-away systemd: a life from the first installation to the purge, in this order."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from systemd_machine import Machine, without_disk

LEFT_BY_A_PURGE = ("/usr/bin/kvtcd", "/usr/bin/kvtcctl", "/etc/kvtcd", "/var/lib/kvtcd", "/lib/systemd/system/kvtcd.service")


def _with_version(package: Path, version: str, directory: Path) -> Path:
    """The same package as another release."""
    with tempfile.TemporaryDirectory() as tree:
        subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
        control = Path(tree) / "DEBIAN/control"
        lines = [f"Version: {version}" if line.startswith("Version:") else line for line in control.read_text().splitlines()]
        control.write_text("\n".join(lines) + "\n")
        target = directory / f"kvtcd_{version}.deb"
        subprocess.run(["dpkg-deb", "--build", "-Znone", tree, target], check=True, stdout=subprocess.DEVNULL)
    return target


def _exists(machine: Machine, path: str) -> bool:
    return Path(machine.root + path).exists()


def package_checks(directory: Path) -> list[Callable[[Machine], bool]]:
    """In the order in which they are to run, each on what the one before left.

    :param directory: what `deploy/package` made.
    """
    (package,) = directory.glob("kvtcd_*.deb")
    library, development = next(directory.glob("libkvtc0_*.deb")), next(directory.glob("libkvtc-dev_*.deb"))

    def put(machine: Machine, *files: Path) -> list[str]:
        for file in files:
            shutil.copy(file, machine.root + "/var/tmp")
        return [f"/var/tmp/{file.name}" for file in files]

    def dpkg(machine: Machine, *arguments: str) -> None:
        machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *arguments)

    def package_installs(machine: Machine) -> bool:
        """After the installation the socket waits, and the first connection starts the daemon; the monitor runs when told to."""
        dpkg(machine, "--install", *put(machine, package, library, development))
        socket = machine.show("kvtcd.socket", "ActiveState", "UnitFileState")
        before = machine.show("kvtcd.service", "ActiveState")["ActiveState"]
        pushed = machine.worker("push")["identical"]
        machine.run("systemctl", "start", "kvtcd-monitor.service")
        asks = 'exec 3<>/dev/tcp/127.0.0.1/9464; printf "GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n" >&3; cat <&3'
        machine.run("ip", "link", "set", "lo", "up", check=False)
        ready = machine.run("bash", "-c", f"until (: </dev/tcp/127.0.0.1/9464) 2>/dev/null; do sleep 0.1; done; {asks}")
        links = machine.run("pkg-config", "--libs", "kvtc")
        return (
            socket == {"ActiveState": "active", "UnitFileState": "enabled"} and before == "inactive" and pushed
            and ready.endswith("ok") and "-lkvtc" in links
        )

    def package_upgrades_under_load(machine: Machine) -> bool:
        """A new release in the middle of a worker's pushes: nothing acknowledged is lost, from RAM alone."""
        without_disk(machine)
        first = machine.status()["instance"]
        with tempfile.TemporaryDirectory() as made:
            (newer,) = put(machine, _with_version(package, "99.0", Path(made)))
        result = machine.load(512, {200: lambda: dpkg(machine, "--install", newer)})
        version = machine.run("dpkg-query", "--show", "--showformat=${Version}", "kvtcd")
        status = machine.status()
        return (
            result["identical"] and version == "99.0" and status["instance"] != first
            and status["counters"]["recovered_from_ram"] >= 200
        )

    def package_removed_keeps_pages(machine: Machine) -> bool:
        """Removed and installed again it serves the pages of before; the configuration is the one that was edited."""
        Path(machine.root + "/etc/systemd/system/kvtcd.service.d/check.conf").unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "kvtcd.service")
        configuration = Path(machine.root + "/etc/kvtcd/kvtcd.toml")
        configuration.write_text(configuration.read_text() + "# edited\n")
        pushed = machine.worker("push")["identical"]
        dpkg(machine, "--remove", "kvtcd")
        gone = not _exists(machine, "/usr/bin/kvtcd") and machine.show("kvtcd.socket", "ActiveState")["ActiveState"] != "active"
        (again,) = put(machine, package)
        dpkg(machine, "--install", "--force-downgrade", again)
        return pushed and gone and machine.worker("pull")["identical"] and configuration.read_text().endswith("# edited\n")

    def package_purge_leaves_nothing(machine: Machine) -> bool:
        """Of a purge neither programs nor units, configuration, pages or running processes are left."""
        dpkg(machine, "--purge", "kvtcd", "libkvtc-dev", "libkvtc0")
        processes = machine.run("pgrep", "--exact", "kvtcd", check=False)
        return not processes and not any(_exists(machine, path) for path in LEFT_BY_A_PURGE)

    return [package_installs, package_upgrades_under_load, package_removed_keeps_pages, package_purge_leaves_nothing]
