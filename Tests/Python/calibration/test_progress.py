"""How far a program is: a bar on a terminal, and elsewhere a line every ten percent."""

import sys

import pytest

pytest.importorskip("tqdm")

from kvtc.calibration.progress import bar, say


def run() -> None:
    with bar("reading", 100, "tokens") as progress:
        for _ in range(100):
            progress.update(1)
    say("read")


def test_elsewhere_than_on_a_terminal_every_ten_percent_are_a_line(capsys) -> None:
    run()
    captured = capsys.readouterr()
    *lines, last = captured.err.splitlines()
    assert [line.split("|")[0].split()[-1] for line in lines] == [f"{percent}%" for percent in range(0, 101, 10)], lines
    assert all(line.startswith("reading: ") for line in lines) and "100/100" in lines[-1] and "\r" not in captured.err
    assert last == "==> read" and not captured.out


def test_on_a_terminal_a_bar_goes_to_its_end(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run()
    captured = capsys.readouterr()
    assert "\rreading" in captured.err and "100/100" in captured.err and captured.err.endswith("\n==> read\n") and not captured.out
