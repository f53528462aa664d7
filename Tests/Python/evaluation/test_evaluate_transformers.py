"""An evaluation with transformers, in float32, through the real daemon: a small random model, texts of letters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tqdm")

from torch_models import calibrated, letters, small, texts

from kvtc.adapters.transformers import TransformersWorker
from kvtc.protocol.geometry import Element
from kvtc_evaluation.evaluate import __main__ as evaluate
from kvtc_evaluation.evaluate import run

from conftest import binary

PREFIX, SCORED = 384, 64


def test_an_engine_that_does_not_round_has_no_floor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    seen = []

    def open_worker(engine, model, context, threads):
        seen.append(engine)
        return TransformersWorker(small("llama", max_position_embeddings=1024), letters, context=context, element=Element.F16)

    monkeypatch.setattr(run, "open_worker", open_worker)
    profile = calibrated(tmp_path, open_worker("", None, 1024, 1), binary("kvtcctl", "KVTCCTL"))
    options = evaluate.parser().parse_args(
        ["--engine", "transformers", "--kvtcd", binary("kvtcd", "KVTCD"), "--kvtcctl", binary("kvtcctl", "KVTCCTL"), "--documents", "2",
         "--passkeys", "0", "--modes", "transform,lossless,quant8,quant4,floor,q8_0", "--ratios", "4", "--prefix", str(PREFIX),
         "--scored", str(SCORED), "--profile", str(profile)]
    )  # fmt: skip
    findings = run.run(replace(evaluate._plan(options), domains=[texts()]))
    results = {result.mode: result for result in findings.results}
    assert seen[1:] == ["transformers"] and findings.model.endswith("(transformers, float32)")
    assert "q8_0 is left out" in capsys.readouterr().err and "q8_0" not in results
    assert results["lossless"].kl == 0 and results["lossless"].top1 == 1
    assert 0 <= results["floor"].kl < 1e-4 < results["quant4"].kl and results["quant8"].kl < results["quant4"].kl
    assert results["transform"].kl > 0
    # Of the sixteen bits of the cache, not of the thirty-two that it is computed in.
    assert results["quant8"].ratio_coded == pytest.approx(1.9, abs=0.1) and results["transform"].ratio_coded == pytest.approx(4, abs=0.3)
