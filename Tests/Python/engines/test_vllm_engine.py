"""A real vLLM on a small model, where its environment is installed (`deploy/setup --with vllm`); `deploy/engines vllm` does all of it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENGINES = Path(os.environ.get("KVTC_ENGINES") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvtc" / "engines")
PYTHON = ENGINES / "vllm" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="vLLM is not installed: deploy/setup --with vllm")


def run(*arguments, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([PYTHON, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_prompt_comes_back_in_another_vllm_with_the_same_tokens(daemon, tmp_path):
    model = tmp_path / "model"
    making = f"from pathlib import Path; from kvtc_evaluation.engines.vllm.files import make_small; make_small(Path({str(model)!r}))"
    run("-c", making, tmp_path=tmp_path)
    found = []
    for number in range(2):
        result = tmp_path / f"{number}.json"
        arguments = json.dumps({"socket": daemon.socket, "model": str(model), "options": {}})
        run("-m", "kvtc_evaluation.engines.vllm.process", "alike", arguments, result, tmp_path=tmp_path)
        found.append(json.loads(result.read_text()))
    pages = [one.pop("pages") for one in found]
    # Of 1000 tokens those of 15 pages; the first engine finds what it computed itself, the second what the first one did, too.
    assert found == [{"other": 0, "own": 960, "same": True}, {"other": 960, "own": 960, "same": True}]
    # The second one computes nothing of them, and so sends nothing.
    assert [(one["asked"], one["brought"], one["kept"] >= 15) for one in pages] == [(15, 15, True), (45, 45, False)]
    assert all(one["looked_up"] >= one["found"] >= 15 for one in pages)
