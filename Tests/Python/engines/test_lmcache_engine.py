"""A real LMCache, where its environment is installed (`deploy/setup --with lmcache`); `deploy/engines lmcache` has its server, too."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENGINES = Path(os.environ.get("KVTC_ENGINES") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc" / "engines")
PYTHON = ENGINES / "lmcache" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="LMCache is not installed: deploy/setup --with lmcache")


@pytest.mark.parametrize("mode", ["lossless", "quant8"])
def test_lmcache_s_own_check_of_adapters_passes(daemon, tmp_path, mode):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    adapter = {"type": "plugin", "module_path": "kvtc.adapters.lmcache", "class_name": "KvtcL2Adapter"}
    adapter["adapter_params"] = {"socket": daemon.socket, "model": str(tmp_path), "mode": mode, "deadline": 60}
    arguments = ["--mode", "test_l2_adapter", "--model", "check", "--l2-adapter", json.dumps(adapter)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [PYTHON, "-m", "lmcache.v1.basic_check", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    for line in ("5/5 correctly absent", "Batch store OK", "5/5 found", "Validation (loaded): 5/5", "Validation (content): 5/5"):
        assert line in done.stdout, done.stdout
