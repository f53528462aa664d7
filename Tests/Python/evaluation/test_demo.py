"""The demonstration's figures."""

import json
from pathlib import Path

import pytest

from kvtc_evaluation.demo.report import Report
from kvtc_evaluation.demo.score import Score, mean


def test_scores_of_several_documents_are_weighted_by_their_tokens() -> None:
    assert mean([Score(0.1, 1.0, 100), Score(0.4, 0.5, 200)]) == Score(pytest.approx(0.3), pytest.approx(2 / 3), 300)


def test_the_report_writes_the_fields_of_the_issue(tmp_path: Path) -> None:
    report = Report("m", 4, 2048, 47 << 20, 3 << 20, 15.7, 32.0, 0.01, 0.97, 8.0, 0.2, 40.0, True, True, False)
    report.write(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["ratio_coded"] == 32.0 and written["evicted_to_disk"] is False and "NO" in report.table()
