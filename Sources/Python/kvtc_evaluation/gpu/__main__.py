"""Measures kvtc.gpu on the GPU at hand: bits, then prefill against restoring, in the shape of Llama-3.1-8B.

python -m kvtc_evaluation.gpu [--json FILE]

Without a GPU everything runs in miniature on Triton's interpreter, which shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    # Triton reads it when it is first imported.
    os.environ["TRITON_INTERPRET"] = "1"

from .measure import Measurement
from .shape import LLAMA_8B, MINIATURE


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help='also write "figures", "ratios", and what they were measured on there')
    options = parser.parse_args(arguments)
    is_gpu = torch.cuda.is_available()
    measurement = Measurement(LLAMA_8B if is_gpu else MINIATURE, torch.device("cuda" if is_gpu else "cpu"))
    try:
        measurement.run()
    finally:
        report: dict[str, Any] = measurement.report()
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["ratios"], indent=1))
    if not is_gpu:
        print("No GPU here: nothing is claimed. What ran is a miniature, on Triton's interpreter.")
    return 0 if report["ratios"]["bit_identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
