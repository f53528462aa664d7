"""The worker on the second machine: it knows a conversation's text, and finds its cache with its own kvtcd.

Reads a request (JSON) from standard input, writes one JSON line per document to standard output.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

from kvtc.adapters import llama_cpp
from kvtc.adapters.llama_cpp.worker import LlamaWorker
from kvtc.calibration.texts import held_out_documents
from kvtc.client import Client

from ..daemon import PATIENCE
from ..demo.score import PREFIX_TOKENS
from ..demo.worker import restore_document


def main() -> int:
    request = json.load(sys.stdin)
    documents = held_out_documents(request["documents"])
    with LlamaWorker(threads=request["threads"]) as worker:
        worker.tokenize(documents[0].text)
        # What the model is read from may be another user's.
        if os.geteuid() == 0 and request["user"] != 0:
            os.setgroups([])
            os.setgid(request["user"])
            os.setuid(request["user"])
        with Client(request["socket"]) as client:
            if request["profile"]:
                with llama_cpp.open_session(client, worker, "fleet", profile=request["profile"]) as session:
                    for document in documents:
                        print(json.dumps(restore_document(session, worker, document, 0)), flush=True)
            else:
                print(json.dumps(_goes_on(client, worker, documents[0].text, request["generate"])), flush=True)
    return 0


def _goes_on(client: Client, worker: LlamaWorker, text: str, count: int) -> dict[str, Any]:
    """The tokens that follow an exact cache from another machine, and those that follow the same text computed here."""
    tokens = worker.tokenize(text)[:PREFIX_TOKENS]
    with llama_cpp.open_session(client, worker, "fleet-lossless") as session:
        worker.clear()
        restored = llama_cpp.restore(session, worker, tokens, deadline=PATIENCE)
        digest = hashlib.sha256(worker.get_state().to_bytes()).hexdigest() if restored else ""
        worker.clear()
        logits = llama_cpp.resume(session, worker, tokens, deadline=PATIENCE, always_restore=True)
        shared = list(worker.generate(logits, count))
    worker.clear()
    own = list(worker.generate(worker.prefill(tokens), count))
    return {"restored": restored, "state": digest, "same_tokens": shared == own, "text": worker.text(shared)}


if __name__ == "__main__":
    sys.exit(main())
