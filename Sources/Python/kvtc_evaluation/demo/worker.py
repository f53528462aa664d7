"""The demo's second worker: a process of its own that knows a context's text and finds its cache with kvtcd.

Reads a request (JSON) from standard input, writes one JSON line per document to standard output.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.library import LlamaError
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.texts import Document, held_out_documents
from kvtc.client import Client
from kvtc.session import Session

from ..daemon import PATIENCE
from .score import PREFIX_TOKENS, SCORED_TOKENS, Reference


def main() -> int:
    request = json.load(sys.stdin)
    documents = held_out_documents(request["documents"])
    with LlamaWorker(threads=request["threads"]) as worker, Client(request["socket"]) as client:
        with llama_cpp.open_session(client, worker, "demo-restore", profile=request["profile"]) as session:
            for index, document in enumerate(documents):
                _answer(restore_document(session, worker, document, request["generate"] if index == 0 else 0))
        with llama_cpp.open_session(client, worker, "demo-lossless") as session:
            tokens = worker.tokenize(documents[0].text)[:PREFIX_TOKENS]
            worker.clear()
            restored = llama_cpp.restore(session, worker, tokens, deadline=PATIENCE)
            digest = hashlib.sha256(worker.get_state().to_bytes()).hexdigest() if restored else ""
            _answer({"lossless_restored": restored, "lossless_state": digest})
    return 0


def restore_document(session: Session, worker: LlamaWorker, document: Document, generate: int) -> dict[str, object]:
    """Time to the first token with and without the kept cache, and what the kept cache does to the predictions."""
    tokens = worker.tokenize(document.text)[: PREFIX_TOKENS + SCORED_TOKENS]
    prefix = tokens[:PREFIX_TOKENS]

    begin = time.perf_counter()
    logits = llama_cpp.resume(session, worker, prefix, deadline=PATIENCE, always_restore=True)
    int(logits.argmax())
    restore_seconds = time.perf_counter() - begin
    text = worker.text(worker.generate(logits, generate)) if generate else ""

    # What the worker holds itself would do as well.
    worker.clear()
    restored_tokens = llama_cpp.restore(session, worker, prefix, deadline=PATIENCE)
    if restored_tokens != PREFIX_TOKENS:
        raise LlamaError(f"{restored_tokens} of {PREFIX_TOKENS} tokens of {document.name} came back")
    state = worker.get_state()
    begin = time.perf_counter()
    worker.clear()
    int(worker.prefill(prefix).argmax())
    recompute_seconds = time.perf_counter() - begin
    reference = Reference(worker, worker.get_state(), tokens[PREFIX_TOKENS:])
    return {
        "document": document.name,
        "restored": restored_tokens,
        "ttft_restore_s": restore_seconds,
        "ttft_recompute_s": recompute_seconds,
        "text": text,
    } | asdict(reference.score(state))


def _answer(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
