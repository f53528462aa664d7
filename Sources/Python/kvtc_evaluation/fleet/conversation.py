"""A real conversation: a worker on machine A reads and offloads, A dies, and a worker on machine B goes on."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.profile_cache import QUICK, profile_for
from kvtc.calibration.progress import Phases, say
from kvtc.calibration.texts import held_out_documents
from kvtc.protocol.policy import Policy

from ..daemon import PATIENCE, DaemonFailed, all_coded, until
from ..demo.score import PREFIX_TOKENS, Score, mean
from .cluster import Cluster
from .host import Host, new_secret, users
from .resume import goes_on

GENERATED_TOKENS = 32
# None: of a text of 2048 tokens, the pages that a window of 128 keeps exact would be half of what is moved.
WINDOW = 0
RAM_MIB = 256


@dataclass
class Moved:
    """What came of it. Bytes are those of all documents."""

    model: str
    same_tokens: bool
    same_state: bool
    kl: float
    top1: float
    ttft_recompute_s: float
    ttft_shared_s: float
    bytes_raw: int
    bytes_moved: int
    window: int = WINDOW


def move(options: argparse.Namespace, cluster: Cluster, phases: Phases) -> Moved:
    """Raises where a step does not do what it must."""
    first, second = users(2)
    secret = new_secret(cluster, "conversation")
    documents = held_out_documents(options.documents)
    with LlamaWorker(threads=options.threads) as worker:
        profile = options.profile or profile_for(worker, options.kvtcctl, QUICK, phases)
        with (
            Host(options.kvtcd, options.kvtcctl, cluster, secret, user=first, profiles=[profile], ram_mib=RAM_MIB) as a,
            # The profile comes from the cluster, too.
            Host(options.kvtcd, options.kvtcctl, cluster, secret, user=second, ram_mib=RAM_MIB) as b,
        ):
            a.start()
            with phases.phase("worker on A reads and offloads"):
                identifier, raw_bytes, own = _offload(a, worker, profile, documents, options.ratio)
            model = worker.name
            worker.close()
            say("A dies")
            a.kill()
            b.start()
            with phases.phase("worker on B goes on"):
                with b.connect(user=0) as client:
                    until(client, "waiting for the profile", lambda _: identifier in {one["id"] for one in client.profiles()})
                    before = b.fetched_bytes(client)
                    answers = _resume(b, identifier, options, options.documents)
                    moved = b.fetched_bytes(client) - before
                (exact,) = _resume(b, "", options, 1)
    say(f"the conversation goes on: {exact['text']!r}")
    score = mean([Score(answer["kl"], answer["top1"], answer["tokens"]) for answer in answers])
    return Moved(
        model=model,
        same_tokens=exact["restored"] == PREFIX_TOKENS and exact["following"] == own["following"],
        same_state=exact["state"] == own["state"],
        kl=score.kl,
        top1=score.top1,
        ttft_recompute_s=sum(answer["ttft_recompute_s"] for answer in answers) / len(answers),
        ttft_shared_s=sum(answer["ttft_restore_s"] for answer in answers) / len(answers),
        bytes_raw=raw_bytes,
        bytes_moved=moved,
    )


def _offload(host: Host, worker: LlamaWorker, profile: Path, documents: list[Any], ratio: float) -> tuple[str, int, dict[str, Any]]:
    """All documents coded, the first one exactly, too: the profile's id, raw bytes of what is coded, and how the first one goes on here."""
    raw_bytes = 0
    with host.connect(user=0) as administrator, host.connect() as client:
        identifier: str = administrator.load_profile(profile.name)["id"]
        for index, document in enumerate(documents):
            tokens = worker.tokenize(document.text)[:PREFIX_TOKENS]
            worker.clear()
            worker.prefill(tokens)
            policy = Policy(mode="transform", quality=ratio, window=WINDOW)
            policies: list[tuple[str, Policy | None]] = [(identifier, policy)] + ([("", None)] if index == 0 else [])
            for chosen, wanted in policies:
                name = "fleet" if chosen else "fleet-lossless"
                with llama_cpp.open_session(client, worker, name, profile=chosen, policy=wanted) as session:
                    done = llama_cpp.offload(session, worker, tokens, deadline=PATIENCE)
                if done.stored != done.pages:
                    raise DaemonFailed(f"{done.stored} of {done.pages} pages of {document.name} were stored")
                raw_bytes += done.raw_bytes if chosen else 0
        until(administrator, "coding pages", all_coded)
        tokens = worker.tokenize(documents[0].text)[:PREFIX_TOKENS]
        with llama_cpp.open_session(client, worker, "fleet-lossless") as session:
            own = goes_on(session, worker, tokens, GENERATED_TOKENS)
        host.await_written(administrator)
    return identifier, raw_bytes, own


def _resume(host: Host, profile: str, options: argparse.Namespace, documents: int) -> list[dict[str, Any]]:
    """Runs the worker of a host; its answers."""
    request = {
        "socket": str(host.socket), "user": host.user, "profile": profile, "documents": documents, "threads": options.threads,
        "generate": GENERATED_TOKENS,
    }
    done = subprocess.run(
        [sys.executable, "-m", "kvtc_evaluation.fleet.resume"], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != documents:
        raise DaemonFailed(f"the worker ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return answers
