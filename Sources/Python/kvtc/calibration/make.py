"""A profile of your model from its file and your texts, in one go: gradients, samples, calibration.

python -m kvtc profile --model model.gguf [--texts PATH …] [--out FILE] [--load] [--quick]

What it has made is kept in ~/.cache/kvtc/profiles and found again for the same model, texts and effort. Samples take some
gigabytes there meanwhile, and are gone when it ends; how much, and how long it takes, is said beforehand.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..adapters.engine import EngineError
from ..whole_file import replacing
from .capture import CONTEXT_TOKENS
from .corpus import add_source_options, chosen_corpus, demo
from .profile_cache import OURS, QUICK, THOROUGH, CalibrationFailed, profiles_for
from .progress import Phases, complain, say
from .readers import open_reader
from .texts import MissingTexts

_PROGRAM = "kvtc profile"
_STEPS = 3


class _Steps(Phases):
    """Says which of the steps begins."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        say(f"{len(self.seconds) + 1} of {_STEPS}: {name}")
        with super().phase(name):
            yield


def _kvtcctl(given: Path | None) -> Path:
    """The program that calibrates; FileNotFoundError where there is none."""
    named = given or os.environ.get("KVTCCTL") or "kvtcctl"
    found = shutil.which(named)
    if found is None:
        raise FileNotFoundError(f"there is no program {named}: install the package kvtcd, or name kvtcctl with --kvtcctl")
    return Path(found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {_PROGRAM}", description=__doc__.split("\n\n")[0])
    add_source_options(parser)
    parser.add_argument("--out", type=Path, help="the profile (default: MODEL.kvtc.safetensors, here)")
    parser.add_argument("--load", action="store_true", help="hand it to the daemon as well; takes an administrator, as 'kvtcctl profile load'")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, for a first look: worse below 32 times")
    parser.add_argument("--kvtcctl", type=Path, help="(default: $KVTCCTL, or the one on PATH)")
    options = parser.parse_args(arguments)
    try:
        kvtcctl = _kvtcctl(options.kvtcctl)
        corpus = chosen_corpus(options) or demo()
        with open_reader(options.model, context=CONTEXT_TOKENS, threads=options.threads) as worker:
            made = profiles_for(worker, kvtcctl, QUICK if options.quick else THOROUGH, corpus, [OURS], _Steps())[OURS]
            out = options.out or Path(f"{worker.path.stem}.kvtc.safetensors")
        # A daemon may be reading the one of before.
        with replacing(out) as place:
            shutil.copyfile(made, place)
    except (CalibrationFailed, EngineError, MissingTexts, OSError) as error:
        complain(_PROGRAM, error)
        return 1
    print(out)
    if options.load:
        return subprocess.run([str(kvtcctl), "profile", "load", str(out.absolute())], check=False).returncode
    say(f"next: kvtcctl profile load {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
