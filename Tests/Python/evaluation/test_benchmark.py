"""What the benchmark compares a restore with: the fastest engine that ran, by name; without one beside llama.cpp nothing counts."""

import json
import sys

import pytest

from kvtc_evaluation.benchmark.results import compared, merge, table
from kvtc_evaluation.benchmark.torch_engine import NoTorch, TorchEngine

TIMES = {f"{side}_{ratio}": 0.5 for side in ("restore", "restore_and_load", "first_layer") for ratio in (16, 45)}
LLAMA = {"prefill_llama_cpp": "llama.cpp"}
BOTH = LLAMA | {"prefill_torch": "torch 2 float32"}
AGAINST = {"restore_vs_prefill", "restore_vs_prefill_45", "restore_and_load_vs_prefill", "restore_and_load_vs_prefill_45"}


def test_a_restore_is_compared_with_the_fastest_prefill_by_name():
    result = compared(TIMES | {"prefill_llama_cpp": 10.0, "prefill_torch": 3.0}, BOTH)
    assert result["ratios"].keys() >= AGAINST and not result["marked"]
    assert result["ratios"]["restore_vs_prefill"] == 6 and result["ratios"]["restore_vs_llama_cpp"] == 20
    assert result["prefill"] == {"fastest": "torch 2 float32", "llama.cpp": 10_000, "torch 2 float32": 3000}
    other = compared(TIMES | {"prefill_llama_cpp": 2.0, "prefill_torch": 3.0}, BOTH)
    assert other["ratios"]["restore_vs_prefill"] == 4 and other["prefill"]["fastest"] == "llama.cpp"
    assert "restore_vs_llama_cpp" not in other["ratios"]
    assert "prefill is by torch 2 float32, the fastest of llama.cpp, torch 2 float32" in table({"figures": {}} | result)


def test_with_llama_cpp_alone_nothing_is_beaten(tmp_path):
    result = {"figures": {}} | compared(TIMES | {"prefill_llama_cpp": 10.0}, LLAMA)
    assert result["marked"].keys() == AGAINST and not AGAINST & result["ratios"].keys()
    assert "does not count: llama.cpp's is the only prefill" in table(result)
    codec = {"figures": {}, "ratios": {}, "marked": {"decode_vs_sgemm_16x": {"value": 0.1, "why": "Prescott"}}}
    paths = [tmp_path / "restore.json", tmp_path / "codec.json"]
    for path, content in zip(paths, (result, codec)):
        path.write_text(json.dumps(content))
    merge(tmp_path / "all.json", paths)
    merged = json.loads((tmp_path / "all.json").read_text())
    assert merged["marked"].keys() == AGAINST | {"decode_vs_sgemm_16x", "decode_vs_sgemm"}
    assert merged["prefill"]["fastest"] == "llama.cpp" and "decode_vs_sgemm" not in merged["ratios"]


def test_an_engine_that_is_not_there_is_said_and_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NoTorch, match="torch"):
        TorchEngine(tmp_path / "model.gguf", 1)
