"""The codec on a GPU, by Triton's interpreter, where its environment is installed (`deploy/setup --with gpu`)."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENGINES = Path(os.environ.get("KVTC_ENGINES") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc" / "engines")
PYTHON = ENGINES / "gpu" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="the GPU codec's environment is not installed: deploy/setup --with gpu")


def test_the_codec_on_a_device():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "Tests/Python/gpu"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout, done.stdout
