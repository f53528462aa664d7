"""deploy/container: the files keep to their formats, say the same of sockets and users, and the configuration in them is one."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from conftest import binary

yaml = pytest.importorskip("yaml")
CONTAINER = Path(__file__).resolve().parents[3] / "deploy/container"
SOCKET = PurePosixPath("/run/kvtcd/kvtcd.sock")
"""Where clients look by default."""


@pytest.fixture(scope="module")
def kubernetes():
    return {entry["kind"]: entry for entry in yaml.safe_load_all((CONTAINER / "kubernetes.yaml").read_text())}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((CONTAINER / "compose.yaml").read_text())


def image():
    """What the image says of its user and of the engine's socket."""
    text = (CONTAINER / "Containerfile").read_text()
    return int(re.search(r"ARG KVTCD_ID=(\d+)", text)[1]), PurePosixPath(re.search(r'engine = "([^"]+)"', text)[1])


def check_configuration(text, directory):
    """Checks a configuration, with its places moved into a directory."""
    (directory / "run").mkdir()
    path = directory / "kvtcd.toml"
    path.write_text(text.replace('"/run/kvtcd', f'"{directory}/run').replace('"/var/lib/', f'"{directory}/'))
    done = subprocess.run([binary("kvtcd", "KVTCD"), "--config", str(path), "--check-config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_they_keep_to_their_schemas():
    pytest.importorskip("kubernetes_validate")
    pytest.importorskip("check_jsonschema")
    for command in (["kubernetes_validate", "--strict", CONTAINER / "kubernetes.yaml"],
                    ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", CONTAINER / "compose.yaml"]):  # fmt: skip
        done = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_of_the_daemonset_is_one(kubernetes, tmp_path):
    text = kubernetes["ConfigMap"]["data"]["kvtcd.toml"]
    pod = kubernetes["DaemonSet"]["spec"]["template"]["spec"]
    (daemon,) = (container for container in pod["containers"] if container["name"] == "kvtcd")
    budget = int(re.fullmatch(r"(\d+)GiB", tomllib.loads(text)["ram"]["budget"])[1])
    assert budget + 1 <= int(re.fullmatch(r"(\d+)Gi", daemon["resources"]["limits"]["memory"])[1])
    # Machines that test have less.
    check_configuration(text.replace(f'"{budget}GiB"', '"1GiB"').replace('"200GiB"', '"1GiB"'), tmp_path)


def test_daemon_and_engine_of_kubernetes_meet(kubernetes):
    user, socket = image()
    pod, engine = kubernetes["DaemonSet"]["spec"]["template"]["spec"], kubernetes["Pod"]["spec"]
    configuration = tomllib.loads(kubernetes["ConfigMap"]["data"]["kvtcd.toml"])
    assert PurePosixPath(configuration["containers"]["engine"]) == socket and PurePosixPath(configuration["socket"]["path"]) == SOCKET
    assert [pod["securityContext"][key] for key in ("runAsUser", "runAsGroup")] == [user, user]
    assert engine["securityContext"]["supplementalGroups"] == [user]
    places = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in pod["volumes"]}
    (made,) = pod["initContainers"][0]["command"][2:]
    for container in pod["containers"]:
        assert {"name": "sockets", "mountPath": "/run/kvtcd"}.items() <= container["volumeMounts"][0].items()
    for path in (places["sockets"], places["pages"], str(socket.parent)):
        assert f" {path}" in made
    assert str(user) in made and str(socket.parent).startswith(places["sockets"])
    # Where the engine's pod has the directory, clients look by themselves.
    assert engine["volumes"][0]["hostPath"] == {"path": str(socket.parent), "type": "Directory"}
    assert engine["containers"][0]["volumeMounts"][0]["mountPath"] == str(SOCKET.parent)


def test_daemon_and_worker_of_compose_meet(compose):
    user, socket = image()
    services = compose["services"]
    assert f"engine:{socket.parent}" in services["kvtcd"]["volumes"] and f"engine:{SOCKET.parent}" in services["worker"]["volumes"]
    assert services["worker"]["group_add"] == [str(user)]
    assert services["monitor"]["pid"] == f"container:{services['kvtcd']['container_name']}"
    assert f"control:{SOCKET.parent}" in services["monitor"]["volumes"]


def test_the_images_configuration_has_the_line_that_is_changed(tmp_path):
    """The image's build replaces the packaged file's example by the engine's socket."""
    pattern, line = re.search(r"s\|(.+?)\|(.+?)\|'", (CONTAINER / "Containerfile").read_text()).groups()
    packaged = (CONTAINER.parents[1] / "Config/kvtcd.toml").read_text()
    changed, count = re.subn(pattern, line, packaged, flags=re.M)
    assert count == 1
    assert f"{tmp_path}/run/engine/kvtcd.sock" in check_configuration(changed, tmp_path)
