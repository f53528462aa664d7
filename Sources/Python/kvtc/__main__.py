"""`python -m kvtc`: which programs the package has, and runs one of them."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

from . import __version__

PROGRAMS = {
    "profile": "kvtc.calibration.make",
    "capture": "kvtc.calibration.capture",
    "gradients": "kvtc.calibration.gradients",
    "sensitivity": "kvtc.calibration.sensitivity",
    "evaluate": "kvtc_evaluation.evaluate",
    "demo": "kvtc_evaluation.demo",
    "benchmark": "kvtc_evaluation.benchmark",
    "engines": "kvtc_evaluation.engines",
    "gpu": "kvtc_evaluation.gpu",
    "fleet": "kvtc_evaluation.fleet",
}
_USAGE = 64


def summary(program: str) -> str:
    """What a program's own text says first. It is not imported: what it needs may not be installed."""
    path = Path(__file__).parents[1] / PROGRAMS[program].replace(".", "/")
    source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n", 1)[0]


def overview() -> str:
    programs = "\n".join(f"  {program:<12} {summary(program)}" for program in PROGRAMS)
    return (
        f"kvtc {__version__}: worker client of kvtcd, the KV-cache offload daemon\n\n"
        f"usage: python -m kvtc PROGRAM [--help] [option …]\n\n{programs}\n\n"
        "A worker imports the package: see help(kvtc) and, for llama.cpp, help(kvtc.adapters.llama_cpp). The daemon is asked with kvtcctl."
    )


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
    elif arguments[0] == "--version":
        print(__version__)
    elif arguments[0] in PROGRAMS:
        sys.argv = arguments
        runpy.run_module(PROGRAMS[arguments[0]], run_name="__main__", alter_sys=True)
    else:
        print(f"there is no program {arguments[0]!r}\n\n{overview()}", file=sys.stderr)
        sys.exit(_USAGE)


if __name__ == "__main__":
    main()
