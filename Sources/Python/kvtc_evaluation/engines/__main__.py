"""Runs engines one after another, each by the Python of its own virtual environment.

python -m kvtc_evaluation.engines NAME… --kvtcd PATH --kvtcctl PATH [--model GGUF] [--profile FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from kvtc.adapters.llama_cpp.context import model_path

from .report import Report, Setting

NAMES = ("vllm", "lmcache", "sglang", "transformers", "c")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kvtc_evaluation.engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--kvtcd", type=Path, required=True, help="the daemon's program")
    parser.add_argument("--kvtcctl", type=Path, required=True)
    parser.add_argument("--model", type=Path, metavar="GGUF", help="(default: SmolLM2-135M-Instruct)")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="of the model's weights (default: the demo's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what it came to there")
    # Set by the outer run: this process is the engine's own Python.
    parser.add_argument("--inner", type=Path, nargs=2, metavar="PATH", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inner:
        scratch, result = options.inner
        setting = Setting(options.kvtcd, options.kvtcctl, options.model, scratch, options.profile)
        module = import_module(f".{options.names[0]}_engine", __package__)
        report: Report = module.run(setting)
        report.write(result)
        return 0
    options.model = options.model or model_path()
    with tempfile.TemporaryDirectory(prefix="kvtc-engines-") as scratch:
        reports = {name: _outer(name, options, Path(scratch)) for name in options.names}
    print(_table(reports))
    if options.json:
        options.json.write_text(json.dumps(reports, indent=2) + "\n")
    return 0 if all(_passed(report) for report in reports.values()) else 1


def _outer(name: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """One engine's report, or what its process said at last where it made none."""
    environments = Path(os.environ["KVTC_ENGINES"])
    python = Path(sys.executable) if name == "c" else environments / name / "bin" / "python"
    own, result = scratch / name, scratch / f"{name}.json"
    own.mkdir()
    command = [str(python), "-m", __package__, name, "--kvtcd", str(options.kvtcd), "--kvtcctl", str(options.kvtcctl)]
    command += ["--model", str(options.model)]
    if options.profile:
        command += ["--profile", str(options.profile)]
    print(f"==> {name}", file=sys.stderr, flush=True)
    status = subprocess.run([*command, "--inner", str(own), str(result)], check=False).returncode
    if status or not result.is_file():
        return {"failed": f"its process ended with status {status}; what it said stands above"}
    loaded: dict[str, Any] = json.loads(result.read_text())
    return loaded


def _passed(report: dict[str, Any]) -> bool:
    return "failed" not in report and Report(**report).passed


def _table(reports: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'engine':14}{'version':12}{'same tokens':13}{'recompute':>10}{'restore':>9}{'KL':>9}  {'daemon down':13}{'isolation':10}"]
    for name, report in reports.items():
        if "failed" in report:
            lines.append(f"{name:14}{report['failed']}")
            continue
        times = [_seconds(report[key]) for key in ("ttft_recompute_s", "ttft_restore_s")]
        kl = "" if report["kl"] is None else f"{report['kl']:.4f}"
        seen = [{True: "yes", False: "NO", None: "-"}[report[key]] for key in ("same_tokens", "daemon_down_ok", "isolation_ok")]
        lines.append(
            f"{name:14}{report['version']:12}{seen[0]:13}{times[0]:>10}{times[1]:>9}{kl:>9}  {seen[1]:13}{seen[2]:10}".rstrip()
        )
        lines += [f"{'':14}ran: {scenario}" for scenario in report["ran"]]
        lines += [f"{'':14}unproven: {what}" for what in report["unproven"]]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
