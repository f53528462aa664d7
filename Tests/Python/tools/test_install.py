"""deploy/install below a directory of its own: again and again, and away again without a trace but what is the user's."""

import os
import subprocess

import pytest

from conftest import ROOT, binary


def install(*arguments):
    environment = os.environ | {"KVTCD": binary("kvtcd", "KVTCD"), "KVTCCTL": binary("kvtcctl", "KVTCCTL")}
    command = [str(ROOT / "deploy" / "install"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def files(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_installed_twice_and_removed(tmp_path):
    assert install("--root", tmp_path).returncode == 0
    first = files(tmp_path)
    for name in ("usr/bin/kvtcd", "lib/systemd/system/kvtcd.socket", "usr/share/man/man1/kvtcctl.1", "etc/kvtcd/kvtcd.toml"):
        assert name in first
    assert b"profile" in (tmp_path / "usr/share/bash-completion/completions/kvtcctl").read_bytes()
    (tmp_path / "etc/kvtcd/kvtcd.toml").write_text("# mine\n")
    (tmp_path / "var/lib/kvtcd/profiles").mkdir(parents=True)
    (tmp_path / "var/lib/kvtcd/profiles/m.kvtc.safetensors").write_text("mine, too")
    mine = {"etc/kvtcd/kvtcd.toml", "var/lib/kvtcd/profiles/m.kvtc.safetensors"}
    assert install("--root", tmp_path).returncode == 0
    assert files(tmp_path) == first | mine and (tmp_path / "etc/kvtcd/kvtcd.toml").read_text() == "# mine\n"
    for _ in range(2):
        result = install("--uninstall", "--root", tmp_path)
        assert result.returncode == 0 and f"still there: {tmp_path}/etc/kvtcd, {tmp_path}/var/lib/kvtcd (" in result.stderr
        assert files(tmp_path) == mine
    assert install("--root", tmp_path, "--uninstall", "--purge").returncode == 0
    assert files(tmp_path) == set()
    # What never was there is not told of.
    result = install("--uninstall", "--root", tmp_path / "empty")
    assert result.returncode == 0 and "still there" not in result.stderr and "kvtcd.toml" not in result.stderr


@pytest.mark.parametrize("arguments", [["--purge"], ["--frobnicate"], ["--root"]])
def test_options_that_say_nothing_change_nothing(arguments):
    result = install(*arguments)
    assert result.returncode != 0 and result.stderr
