"""SGLang's own host pools and controllers, where its environment is installed (`deploy/setup --with sglang`), on rows that are made up;
`deploy/engines sglang` has a model's."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENGINES = Path(os.environ.get("KVTC_ENGINES") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc" / "engines")
PYTHON = ENGINES / "sglang" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="SGLang is not installed: deploy/setup --with sglang")

PROGRAM = """
import sys
from pathlib import Path
from kvtc_evaluation.engines import sglang_host as sglang

sglang.prepare()
import torch

socket, scratch = sys.argv[1], Path(sys.argv[2])
sglang.publish(scratch)
tokens = list(range(7, 7 + 5 * sglang.PAGE))
rows = torch.randn(2, 3, len(tokens), 2, 16, dtype=torch.float16)
with sglang.one_rank(scratch) as group:
    for layout in ("page_first", "page_first_direct", "layer_first"):
        pools = sglang.key_value_pool(8, 3, 2, 16, layout, torch.float16)
        with sglang.Host(pools, group, {"socket": socket, "deadline": 60}) as host:
            if layout == "page_first":
                assert host.read(tokens, rows.shape, []).shape[2] == 0
                assert host.write(rows, tokens, []) == len(tokens)
            assert torch.equal(host.read(tokens + [1, 2, 3], rows.shape, []), rows), layout
            assert host.read(tokens, rows.shape, [], "tenant").shape[2] == 0
            stats = host.controller.storage_backend.get_stats()
            assert (stats.prefetch_pgs, stats.backup_pgs) == ([5], [5] if layout == "page_first" else [])
            assert all(speed > 0 for speed in stats.prefetch_bandwidth + stats.backup_bandwidth)
"""


def test_a_controller_brings_what_another_one_stored(daemon, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [PYTHON, "-c", PROGRAM, daemon.socket, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
