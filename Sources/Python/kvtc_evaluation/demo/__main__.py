"""kvtcd's main job on real input: a conversation leaves the engine's memory, goes to disk and comes back.

python -m kvtc_evaluation.demo --kvtcd PATH --kvtcctl PATH [--thorough] [--json FILE]

A first worker reads held-out documents and pushes their caches; other contexts crowd them out of RAM; the daemon is
restarted; a second worker process finds the first's prefixes, restores them and goes on generating.

The first time it calibrates a profile, quickly; --thorough makes one from everything that raises quality.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.blob import StateError
from kvtc.adapters.llama_cpp.library import LlamaError
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.profile_cache import QUICK, THOROUGH, CalibrationFailed, profile_for
from kvtc.calibration.progress import Phases, bar, complain, say
from kvtc.calibration.texts import MissingTexts, held_out_documents
from kvtc.client import Client
from kvtc.keys import page_keys
from kvtc.protocol.errors import KvtcError
from kvtc.protocol.messages import Residence
from kvtc.protocol.policy import Policy
from kvtc.session import Session

from ..daemon import PATIENCE, Daemon, DaemonFailed, all_coded, kept_bytes, until
from .report import Report, phase_table
from .score import PREFIX_TOKENS, Score, mean

RAM_MIB, DISK_MIB = 64, 1024
GENERATED_TOKENS = 32
INTERRUPTED = 130


@dataclass
class Pushed:
    """What the first worker did. Sizes are of all documents together; `digest` is of the lossless document's state."""

    keys: list[list[bytes]]
    raw_bytes: int
    stored_bytes: int
    coded_ratio: float
    digest: str
    model: str
    evicted: bool = False


def run(options: argparse.Namespace, phases: Phases) -> Report:
    """The whole demo; raises when a step does not do what it must."""
    with LlamaWorker(threads=options.threads) as worker:
        profile = options.profile or profile_for(worker, options.kvtcctl, THOROUGH if options.thorough else QUICK, phases)
        with Daemon(options.kvtcd, options.kvtcctl, [profile], ram_mib=RAM_MIB, disk_mib=DISK_MIB) as daemon:
            first_process = daemon.start()
            with daemon.connect(name="kvtc-demo") as client:
                first_instance = client.instance
                identifier = client.load_profile(profile.name)["id"]
                pushed = _first_worker(daemon, client, worker, identifier, options, phases)
            with phases.phase("flushing and restarting kvtcd"):
                say("kvtcctl flush")
                print(daemon.control("flush"), file=sys.stderr)
                say("restarting kvtcd")
                daemon.stop()
                second_process = daemon.start()
                with daemon.connect(name="kvtc-demo") as client:
                    restarted = client.instance != first_instance and first_process != second_process
                    client.load_profile(profile.name)
                worker.close()
            with phases.phase("second worker restores, computes again, compares"):
                answers = _second_worker(daemon, identifier, options)
    return _report(pushed, answers, restarted, _effort(options), options.documents)


def _effort(options: argparse.Namespace) -> str:
    return "given" if options.profile else "thorough" if options.thorough else "quick"


def _first_worker(
    daemon: Daemon, client: Client, worker: LlamaWorker, profile: str, options: argparse.Namespace, phases: Phases
) -> Pushed:
    """Reads the documents and pushes them: lossy ones first, then lossless ones until the first has left RAM."""
    documents = held_out_documents(options.documents)
    policy = Policy(mode="transform", quality=options.ratio)
    keys, raw_bytes, states = [], 0, []
    with (
        phases.phase("first worker reads and offloads"),
        bar("first worker: prefilling", len(documents) * PREFIX_TOKENS, "tokens") as progress,
    ):
        for document in documents:
            tokens = worker.tokenize(document.text)[:PREFIX_TOKENS]
            worker.clear()
            worker.prefill(tokens, progress.update)
            states.append((tokens, worker.get_state()))
            with llama_cpp.open_session(client, worker, "demo", profile=profile, policy=policy) as session:
                done = llama_cpp.offload(session, worker, tokens, deadline=PATIENCE)
                if done.stored != done.pages:
                    raise DaemonFailed(f"{done.stored} of {done.pages} pages of {document.name} were stored")
                keys.append(page_keys(tokens, session.page_tokens, session.profile))
                raw_bytes += done.raw_bytes
                until(client, "coding pages", all_coded)
    stored_bytes = kept_bytes(client)
    with (
        phases.phase("crowding the context out of RAM"),
        llama_cpp.open_session(client, worker, "demo", profile=profile, policy=policy) as session,
    ):
        ratio = _coded_ratio(client, session, keys[-1])
        worker.set_state(states[-1][1])
        llama_cpp.offload(session, worker, states[-1][0], deadline=PATIENCE)
        pushed = Pushed(keys, raw_bytes, stored_bytes, ratio, "", worker.name)
        say("crowding the first context out of RAM with other contexts' pages")
        for index, (tokens, state) in enumerate(states):
            worker.set_state(state)
            if index == 0:
                pushed.digest = hashlib.sha256(state.to_bytes()).hexdigest()
            with llama_cpp.open_session(client, worker, "demo-lossless") as lossless:
                llama_cpp.offload(lossless, worker, tokens, deadline=PATIENCE)
            until(client, "coding pages", all_coded)
        pushed.evicted = set(session.lookup(keys[0]).residence) == {Residence.DISK}
        say("kvtcctl status")
        print(daemon.control("status"), file=sys.stderr)
    return pushed


def _coded_ratio(client: Client, session: Session, keys: list[bytes]) -> float:
    """Raw over stored bytes, headers included, of the pages that are coded from first row to last.

    The page with the sinks and those with the window are dropped for the count, and pushed again by the caller.
    """
    window = -(-128 // session.page_tokens)
    whole = keys[1:-window]
    session.drop([keys[0], *keys[-window:]])
    with_them = kept_bytes(client)
    session.drop(whole)
    stored = with_them - kept_bytes(client)
    return len(whole) * session.page_bytes / stored


def _second_worker(daemon: Daemon, profile: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs the restoring process; its answers, one per document and one for the lossless state."""
    request = {
        "socket": str(daemon.socket),
        "profile": profile,
        "documents": options.documents,
        "threads": options.threads,
        "generate": GENERATED_TOKENS,
    }
    command = [sys.executable, "-m", "kvtc_evaluation.demo.worker"]
    answers = []
    with (
        bar("second worker: restoring", options.documents + 1, "contexts") as progress,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdin and process.stdout
        json.dump(request, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            answers.append(json.loads(line))
            progress.update()
    if process.returncode != 0 or len(answers) != options.documents + 1:
        raise DaemonFailed(f"the second worker ended with status {process.returncode}")
    return answers


def _report(pushed: Pushed, answers: list[dict[str, Any]], restarted: bool, effort: str, documents: int) -> Report:
    *restored, lossless = answers
    say(f"the restored conversation goes on: {restored[0]['text']!r}")
    score = mean([Score(answer["kl"], answer["top1"], answer["tokens"]) for answer in restored])
    recompute = sum(answer["ttft_recompute_s"] for answer in restored) / documents
    restore = sum(answer["ttft_restore_s"] for answer in restored) / documents
    return Report(
        model=pushed.model,
        profile=effort,
        documents=documents,
        tokens=PREFIX_TOKENS,
        raw_bytes=pushed.raw_bytes // documents,
        stored_bytes=pushed.stored_bytes // documents,
        ratio_total=round(pushed.raw_bytes / pushed.stored_bytes, 3),
        ratio_coded=round(pushed.coded_ratio, 3),
        kl=round(score.kl, 6),
        top1=round(score.top1, 5),
        ttft_recompute_s=round(recompute, 4),
        ttft_restore_s=round(restore, 4),
        ttft_ratio=round(recompute / restore, 2),
        lossless_identical=lossless["lossless_restored"] == PREFIX_TOKENS and lossless["lossless_state"] == pushed.digest,
        daemon_restarted=restarted,
        evicted_to_disk=pushed.evicted,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc_evaluation.demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kvtcd", type=Path, required=True)
    parser.add_argument("--kvtcctl", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--profile", type=Path, help="use this profile and calibrate none")
    parser.add_argument("--thorough", action="store_true", help="calibrate from all that raises quality, and use 4 documents")
    parser.add_argument("--documents", type=int, help="held-out documents (default: 2, with --thorough 4)")
    parser.add_argument("--ratio", type=float, default=32, help="asked of the coder (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--before", nargs=2, action="append", default=[], metavar=("PHASE", "SECONDS"), help="what else to count")
    options = parser.parse_args(arguments)
    options.documents = options.documents or (4 if options.thorough else 2)
    phases = Phases()
    try:
        phases.seconds |= {name: float(seconds) for name, seconds in options.before}
        report = run(options, phases)
    except KeyboardInterrupt:
        print("kvtc_evaluation.demo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (CalibrationFailed, DaemonFailed, KvtcError, LlamaError, StateError, MissingTexts, OSError) as error:
        complain("kvtc_evaluation.demo", error)
        return 1
    print(report.table())
    print(f"\n{phase_table(phases.seconds)}")
    if options.json:
        report.write(options.json, phases.seconds)
    return 0 if report.lossless_identical and report.daemon_restarted and report.evicted_to_disk else 1


if __name__ == "__main__":
    # As Ctrl-C does: the daemon of its own is stopped; its directory and the samples, which take a gigabyte, are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
