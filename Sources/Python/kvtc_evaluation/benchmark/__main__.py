"""Restoring a context against computing it again: the same tokens, model, machine and run, in turns.

python -m kvtc_evaluation.benchmark --kvtcd PATH --kvtcctl PATH [--quick] [--json FILE]
python -m kvtc_evaluation.benchmark --prepare SAMPLES --kvtcctl PATH       the demo's profile (its path is printed) and held-out samples
python -m kvtc_evaluation.benchmark --merge FILE RESULT.json…              several benchmarks' results in one file

A document of 2048 tokens is prefilled by llama.cpp and pushed to two daemons, one for each ratio. Then, in turns: prefill, by
llama.cpp and by torch in float32 where that is installed (on many processors several times faster); for each ratio the
restore up to the state that the engine takes (lookup, pull through shared memory, all layers of all pages in their places); the
same with the engine taking it; and the time until the first layer of every page is there. Ratios are to the faster prefill, and
the result names it; where llama.cpp's is the only one, they are marked and do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from kvtc.adapters.llama_cpp.blob import StateError
from kvtc.adapters.llama_cpp.library import LlamaError
from kvtc.calibration.profile_cache import CalibrationFailed
from kvtc.calibration.progress import complain
from kvtc.calibration.texts import MissingTexts
from kvtc.protocol.errors import KvtcError

from ..daemon import DaemonFailed
from .restore import measure, prepare
from .results import merge, table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kvtc_evaluation.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kvtcd", type=Path, default=os.environ.get("KVTCD"), help="the daemon's program (default: $KVTCD)")
    parser.add_argument("--kvtcctl", type=Path, default=os.environ.get("KVTCCTL"), help="(default: $KVTCCTL)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    parser.add_argument("--profile", type=Path, help="use this profile and calibrate none")
    parser.add_argument("--calibration-tokens", type=int, default=57_344, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: %(default)s)")
    parser.add_argument("--prepare", type=Path, metavar="SAMPLES", help=argparse.SUPPRESS)
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.merge:
            merge(options.merge[0], options.merge[1:])
            return 0
        if not options.kvtcctl or not (options.kvtcd or options.prepare):
            parser.error("name --kvtcd and --kvtcctl")
        if options.prepare:
            print(prepare(options))
            return 0
        result = measure(options)
    except (CalibrationFailed, DaemonFailed, KvtcError, LlamaError, StateError, MissingTexts, OSError) as error:
        complain("kvtc_evaluation.benchmark", error)
        return 1
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
