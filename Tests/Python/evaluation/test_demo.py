"""The demonstration's figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tqdm")

from kvtc_evaluation.demo import __main__ as demo
from kvtc_evaluation.demo.report import Report, phase_table
from kvtc_evaluation.demo.score import Score, mean

REPORT = Report("m", "quick", 4, 2048, 47 << 20, 3 << 20, 15.7, 32.0, 0.01, 0.97, 8.0, 0.2, 40.0, True, True, True)


def test_scores_of_several_documents_are_weighted_by_their_tokens() -> None:
    assert mean([Score(0.1, 1.0, 100), Score(0.4, 0.5, 200)]) == Score(pytest.approx(0.3), pytest.approx(2 / 3), 300)


def test_the_report_writes_the_fields_of_the_issue(tmp_path: Path) -> None:
    report = replace(REPORT, evicted_to_disk=False)
    report.write(tmp_path / "out.json", {"building": 61.239, "restoring": 5})
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["ratio_coded"] == 32.0 and written["evicted_to_disk"] is False and "NO" in report.table()
    assert written["profile"] == "quick" and "--thorough" in report.table()
    assert written["phases"] == {"building": 61.24, "restoring": 5}


def test_phases_are_told_in_their_order_with_their_sum() -> None:
    lines = phase_table({"building": 61.2, "restoring": 5.0}).splitlines()
    assert [line.split() for line in lines] == [["building", "1:01"], ["restoring", "0:05"], ["together", "1:06"]]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(("arguments", "documents"), [([], 2), (["--thorough"], 4), (["--thorough", "--documents", "1"], 1)])
@pytest.mark.parametrize("missing", ["lossless_identical", "daemon_restarted", "evicted_to_disk", None])
def test_it_succeeds_when_all_of_it_happened(arguments, documents, missing, tmp_path: Path, monkeypatch, capsys) -> None:
    def run(options, phases) -> Report:
        assert options.documents == documents
        with phases.phase("restoring"):
            return replace(REPORT, **({missing: False} if missing else {}))

    monkeypatch.setattr(demo, "run", run)
    out = tmp_path / "out.json"
    programs = ["--kvtcd", "d", "--kvtcctl", "c", "--before", "building", "61", "--json", str(out)]
    assert demo.main([*programs, *arguments]) == (1 if missing else 0)
    assert list(json.loads(out.read_text())["phases"]) == ["building", "restoring"]
    assert ("NO" in (said := capsys.readouterr().out)) == bool(missing) and "1:01" in said


@pytest.mark.parametrize(
    ("reason", "status", "message"),
    [(demo.DaemonFailed("kvtcd was not ready"), 1, "kvtcd was not ready"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_what_stops_it_is_said_in_a_line(reason, status, message, monkeypatch, capsys) -> None:
    def run(options, phases) -> Report:
        raise reason

    monkeypatch.setattr(demo, "run", run)
    assert demo.main(["--kvtcd", "d", "--kvtcctl", "c"]) == status
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1 and not captured.out
