"""The codec on a GPU, by Triton's interpreter, where its environment is installed (`deploy/setup --with gpu`)."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from conftest import binary

ROOT = Path(__file__).resolve().parents[3]
ENGINES = Path(os.environ.get("KVTC_ENGINES") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc" / "engines")
PYTHON = ENGINES / "gpu" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="the GPU codec's environment is not installed: deploy/setup --with gpu")


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python"), "PYTHONDONTWRITEBYTECODE": "1"}


def run(*arguments):
    environment = ENVIRONMENT | {"KVTCD": binary("kvtcd", "KVTCD"), "KVTCCTL": binary("kvtcctl", "KVTCCTL")}
    done = subprocess.run([PYTHON, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def test_the_codec_on_a_device():
    assert " passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", "Tests/Python/gpu")


def test_what_measures_a_gpu_runs_in_miniature_and_claims_nothing(tmp_path):
    assert "nothing is claimed" in run("-m", "kvtc_evaluation.gpu", "--json", str(tmp_path / "gpu.json"))
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["ratios"].pop("bit_identical") is True and set(report["ratios"].values()) == {None}
    assert {"restore_1x32_16_ms", "restore_1x32_45_ms", "prefill_1x32_ms", "encode_32_16_ms", "raw_32_ms"} <= set(report["figures"])
    assert {"daemon_1x32_16_ms", "daemon_first_layer_1x32_45_ms", "daemon_raw_32_ms"} <= set(report["figures"])
    assert report["versions"]["restored_from"] == "kvtcd"
    # What a block takes is the ratio that was asked for, as far as pages so small have it.
    assert report["figures"]["ratio_16"] < report["figures"]["ratio_45"]
